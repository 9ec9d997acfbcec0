"""original-plan: this library beside what the plan of the original system expected of itself.

Its columns are expectations from a document, so they are told and not measured; the best of them is
"6 of 6", with all six services running. We want a tenth of it. The polling workload is the plan's:
workers look for new messages of each channel, and ask of each message whether it is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from time import perf_counter, sleep
from typing import Any

from benchmarks.benchmark import Aim, Benchmark, Bound, Contender, Operation, Plan, Role
from benchmarks.posts import CHANNEL, post, posts
from benchmarks.rows import by_hand_marking, latency
from benchmarks.rows.reports import Report
from benchmarks.stand import Stand
from telegram_hybrid.hybrid import Hybrid, connect
from telegram_hybrid.model import Event, EventType, Message, Status
from telegram_hybrid.schema.redis.decoding import decode

_PAGE = 100
_STORED = 1_000
_MESSAGES = (1_000, 300, 20)
#: A turn of the polling workload: channels, workers, and new messages of each channel.
_CHANNELS, _WORKERS, _NEW = 20, 4, 12
_KINDS = "bench_plan"
_BY_HAND = "the least of it by hand"


def _columns(*told: float | None) -> tuple[Contender, ...]:
    """What the plan said, from "before" to "6 of 6"; None where it said nothing."""
    names = ("the plan: before", "the plan: 4 of 6", "the plan: 6 of 6")
    roles = (Role.TOLD, Role.TOLD, Role.ALTERNATIVE)
    return tuple(
        Contender(name, role, partial(_constant, value))
        for name, role, value in zip(names, roles, told, strict=True)
        if value is not None
    )


@contextmanager
def _constant(value: float, _: Any) -> Iterator[Operation]:
    yield Operation(call=lambda _: (value, 0.0), tells=True)


def _on_stored(
    work: Callable[[Hybrid], Callable[[Any], Any]],
    inputs: Callable[[int], Sequence[Any]] | None = None,
    per: int = 1,
) -> Callable[[Stand], Any]:
    @contextmanager
    def opened(stand: Stand) -> Iterator[Operation]:
        with stand.hybrid(_KINDS) as hybrid:
            for first in range(1, _STORED, _PAGE):  # as they come, and not as an import
                hybrid.messages.save_many(posts(_PAGE, first=first))
            call = work(hybrid)
            yield Operation(call=call, inputs=inputs or _ids(), per=per)

    return opened


def _ids() -> Callable[[int], Sequence[int]]:
    random = Random(1)
    return lambda calls: [random.randint(1, _STORED - _PAGE) for _ in range(calls)]


def _polled(hybrid: Hybrid) -> Callable[[int], None]:
    """The next hundred behind a cursor, oldest first."""

    def call(given: int) -> None:
        if len(hybrid.messages.after(CHANNEL, message_id=given, limit=_PAGE)) != _PAGE:
            raise RuntimeError(f"behind {given} are fewer than {_PAGE}")

    return call


@contextmanager
def _packed(stand: Stand) -> Iterator[Operation]:
    """Some hundred messages, from a value with nothing else in it: nothing is to be found there.

    They are decoded as the library does it, which is faster than msgspec and the model's checks.
    """
    key = f"{_KINDS}_packed"
    with stand.redis() as client:
        for first in range(1, _STORED, _PAGE):
            text = b"\n".join(each.to_json() for each in posts(_PAGE, first=first))
            client.set(f"{key}:{first // _PAGE}", text)

        def call(given: int) -> list[Message]:
            return [decode(line) for line in client.get(f"{key}:{given // _PAGE}").split(b"\n")]

        yield Operation(call=call, inputs=_ids())


def _known(hybrid: Hybrid) -> Callable[[int], None]:
    def call(given: int) -> None:
        if not hybrid.messages.seen(CHANNEL, [given]):
            raise RuntimeError(f"{given} is not known")

    return call


def _updated(hybrid: Hybrid) -> Callable[[Any], object]:
    """A hundred messages at a time, as a worker has them; there and back, so that each changes."""
    turns = count()

    def call(_: object) -> object:
        turn = next(turns)
        to = Status.REPROCESSED if turn % 2 else Status.REPROCESS_PENDING
        return hybrid.messages.mark_many(CHANNEL, range(1, _PAGE + 1), to)

    return call


@contextmanager
def _through(
    stand: Stand, *, name: str, relay: Callable[..., Any], publish: Callable[..., Any]
) -> Iterator[Operation]:
    """From saving, over relay and broker, to the handler that marks each message as published.

    Of as many channels as the polling workload has: events of one wait for each other.
    """
    messages = stand.sized(_MESSAGES)
    context = get_context("spawn")
    heard, told = context.Pipe(duplex=False)
    with latency.ticking(stand, name) as place, connect(place.settings) as hybrid:
        hybrid.messages.save_many(posts(150, first=10**6))  # the partitions are there
        firsts = count(1, messages)

        def call(_: object) -> tuple[float, float]:
            first = next(firsts)
            waiting = set(range(first, first + messages))
            given = [post(number, -1001 - number % _CHANNELS) for number in waiting]
            began = perf_counter()
            hybrid.messages.save_many(given)
            while waiting:
                if not heard.poll(60):
                    raise RuntimeError(f"{len(waiting):,} of {messages:,} messages do not come")
                waiting.difference_update(number for number, _ in heard.recv())
            return perf_counter() - began, 0.0

        processes = (
            partial(relay, place.settings),
            partial(publish, place.settings, place.queue, told),
        )
        with latency.processes(stand, *processes):
            yield Operation(call=call, per=messages, tells=True)


def _relay(settings: Any, ready: Any) -> None:
    latency.run_relay(settings, None, ready)


def _publish(settings: Any, queue: str, told: Connection, ready: Any) -> None:
    report = Report(told)

    def handle(event: Event, tx: Any) -> None:
        if event.type == EventType.RECEIVED and event.message_id is not None:
            tx.messages.mark(event.channel_id, event.message_id, Status.PUBLISHED)
        elif event.type == EventType.STATUS_CHANGED and event.message_id is not None:
            report(event.message_id)  # so it is committed, and even announced

    with connect(settings) as hybrid:
        consumer = hybrid.consume(handle, queue=queue, bind=latency.BIND, batch=20)
        consumer.start()
        ready.release()
        while consumer.running:
            sleep(1.0)


class _Workers:
    """The polling workload, on one library: its reads alone are counted."""

    def __init__(self, stand: Stand, hybrid: Hybrid) -> None:
        self._postgres = stand.postgres_pid
        self._hybrid = hybrid
        self._channels = range(-1000 - _CHANNELS, -1000)
        self._last = _STORED // 4
        for channel_id in self._channels:
            hybrid.messages.save_many(posts(self._last, channel_id=channel_id))
        self._places = {
            (worker, each): self._last for worker in range(_WORKERS) for each in self._channels
        }

    def turn(self) -> None:
        """New messages come; then every worker looks after each of its channels."""
        for channel_id in self._channels:
            self._hybrid.messages.save_many(
                posts(_NEW, first=self._last + 1, channel_id=channel_id)
            )
        self._last += _NEW

    def reads(self) -> None:
        """Poll each channel, and ask whether each message of the page is known."""
        for (worker, channel_id), place in self._places.items():
            found: list[Message] = self._hybrid.messages.after(
                channel_id, message_id=place, limit=_PAGE
            )
            for each in found:
                if not self._hybrid.messages.seen(channel_id, [each.message_id]):
                    raise RuntimeError(f"{each.key} is not known")
            if len(found) != _NEW:
                raise RuntimeError(f"{len(found)} new messages instead of {_NEW}")
            self._places[worker, channel_id] = found[-1].message_id

    def burnt(self, _: object) -> tuple[float, float]:
        """The CPU seconds of PostgreSQL for the reads of one turn."""
        self.turn()
        before = _cpu_of_children(self._postgres)
        self.reads()
        return max(1e-6, _cpu_of_children(self._postgres) - before), 0.0

    def missed(self, _: object) -> tuple[float, float]:
        """The share of the keys read that Redis could not answer."""
        self.turn()
        before = self._hybrid.cache.stats()
        self.reads()
        after = self._hybrid.cache.stats()
        misses, hits = after.misses - before.misses, after.hits - before.hits
        return max(1e-6, misses / (misses + hits)), 0.0


class _Share:
    """What the plan said of the load: so much less of what it is without the cache."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._whole = 0.0

    def of(self, figure: Callable[[Any], tuple[float, float]]) -> Callable[[Any], Any]:
        """The same figure, whose newest value counts as the whole."""

        def call(given: Any) -> tuple[float, float]:
            self._whole, cpu = figure(given)
            return self._whole, cpu

        return call

    @contextmanager
    def told(self, _: Any) -> Iterator[Operation]:
        yield Operation(call=lambda _: (self._share * self._whole, 0.0), tells=True)


def _cpu_of_children(pid: int) -> float:
    """Seconds that the processes of a server have run (proc(5), schedstat)."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (
        sum(int(Path(f"/proc/{each}/schedstat").read_text().split()[0]) for each in children) / 1e9
    )


def _polling(
    figure: Callable[[_Workers], Callable[[Any], Any]], *, cached: bool = True
) -> Callable[[Stand], Any]:
    @contextmanager
    def opened(stand: Stand) -> Iterator[Operation]:
        name = f"{_KINDS}_{'cached' if cached else 'bare'}"
        with stand.hybrid(name, cached=cached) as hybrid:
            yield Operation(call=figure(_Workers(stand, hybrid)), tells=True)

    return opened


_OFTEN = Plan(rounds=20, calls=50, warmup=50), Plan(rounds=5, calls=20, warmup=20)
_SELDOM = Plan(rounds=10, calls=1, warmup=2), Plan(rounds=3, calls=1, warmup=1)
_TENTH = Aim(alternatives=0.1)


def _row(
    name: str,
    what: str,
    ours: Contender,
    *others: Contender,
    plans: tuple[Plan, Plan] = _OFTEN,
    aim: Aim = _TENTH,
    **more: Any,
) -> Benchmark:
    plan, quick = plans
    return Benchmark(
        id=f"original-plan-{name}",
        what=what,
        contenders=(ours, *others),
        plan=plan,
        quick=quick,
        aim=aim,
        **more,
    )


_GET_PACKED = "GET of one packed value + our decoder"
POLL = _row(
    "poll",
    f"a look for the next {_PAGE} messages of a channel",
    Contender("messages.after", Role.OURS, _on_stored(_polled)),
    Contender(_GET_PACKED, Role.FLOOR, _packed, needs=("redis", "hiredis", "msgspec")),
    *_columns(0.050, 0.015, 0.010),
    bound=Bound(_GET_PACKED, f"so long the {_PAGE} messages take to decode"),
)
DEDUP = _row(
    "dedup",
    f"whether a message is known, of {_STORED:,} that came {_PAGE} at a time",
    Contender("messages.seen", Role.OURS, _on_stored(_known)),
    *_columns(0.020, 0.003, 0.002),
)
UPDATE = _row(
    "update",
    f"another status of a message, of {_PAGE} in a transaction, with its event",
    Contender("messages.mark_many", Role.OURS, _on_stored(_updated, per=_PAGE)),
    *_columns(0.200, None, 0.005),
)
END_TO_END = _row(
    "end-to-end",
    "from a message's commit to its handler, at the plan's 50 messages a second",
    Contender(
        "save to handler",
        Role.OURS,
        partial(latency.delivered, name="bench_plan_latency", rate=50, per=1, saving=True),
    ),
    *_columns(5.9, None, 0.530),
    plans=(Plan(rounds=5, calls=500, warmup=100), Plan(rounds=2, calls=200, warmup=50)),
)
THROUGHPUT = _row(
    "throughput",
    "a message's share of saving, relaying, handling and marking as published;"
    f" {_CHANNELS} channels",
    Contender(
        "save to published",
        Role.OURS,
        partial(_through, name="bench_plan_through", relay=_relay, publish=_publish),
    ),
    Contender(
        _BY_HAND,
        Role.FLOOR,
        partial(
            _through,
            name="bench_plan_by_hand",
            relay=by_hand_marking.relay,
            publish=by_hand_marking.publish,
        ),
        needs=("psycopg", "redis", "amqp"),
    ),
    *_columns(1 / 20, 1 / 40, 1 / 50),
    plans=_SELDOM,
    bound=Bound(
        _BY_HAND,
        "the messages are of one channel, whose events go out one by one: the next when the broker"
        " has confirmed the one before, on disk. Two of them, a status and the inbox are what a"
        " message takes of anybody who keeps their order and loses none.",
    ),
)
_TURN = (
    f"{_WORKERS} workers, {_CHANNELS} channels, {_NEW} new messages of each: one look at each"
    " channel, and one at each message"
)
MISSES = _row(
    "misses",
    f"share of keys that Redis could not answer; {_TURN}",
    Contender("with the cache", Role.OURS, _polling(lambda workers: workers.missed)),
    *_columns(None, 0.30, 0.25),
    plans=_SELDOM,
    aim=Aim(most=0.05),
    unit="%",
)
_LEFT = _Share(1 - 0.70)
LOAD = _row(
    "load",
    f"CPU time of PostgreSQL for reading; {_TURN}",
    Contender("with the cache", Role.OURS, _polling(lambda workers: workers.burnt)),
    Contender(
        "without it",
        Role.ALTERNATIVE,
        _polling(lambda workers: _LEFT.of(workers.burnt), cached=False),
    ),
    Contender("the plan: 6 of 6 (70% less)", Role.TOLD, _LEFT.told),
    plans=_SELDOM,
)

ROWS = (POLL, DEDUP, UPDATE, END_TO_END, THROUGHPUT, MISSES, LOAD)
