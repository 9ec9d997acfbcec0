"""latency: from commit to handler at a given rate; writers, relay and consumer are processes.

The clock starts before COMMIT is sent, so that the commit is in it. A transaction publishes one
event of its own, or, in the row "in tens", saves ten messages. The limit publishes to the same
queue with py-amqp and takes with py-amqp, and commits nothing. The outbox by hand writes events of
its own in every row, also in tens, where ours stores messages. The alternative is our relay without
wake-ups, looking once a second: what polling costs.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from threading import Lock, Thread, local
from time import monotonic, sleep
from typing import Any

import amqp
import attrs

from benchmarks.benchmark import Aim, Benchmark, Contender, Operation, Plan, Role
from benchmarks.posts import post
from benchmarks.rows import by_hand
from benchmarks.rows.reports import Report
from benchmarks.stand import Stand
from telegram_hybrid.delivery import relay as relaying
from telegram_hybrid.hybrid import connect
from telegram_hybrid.model import Event
from telegram_hybrid.settings import Settings

_TOPIC = "bench.ticked"
BIND = (_TOPIC, "telegram.channel.#")
_CHANNELS = 50
_WRITERS = 8
_OTHERS = 1_500_000_000  # above every number that is sent
_BATCH = 20  # events that a consumer may handle in one transaction
_AMQP = ("amqp",)
#: Begins events with these numbers, and returns when they began (monotonic).
Send = Callable[[Sequence[int]], float]


@attrs.frozen
class _Place:
    """A queue of one contender's own, the only one that its exchange brings anything to."""

    settings: Settings
    queue: str

    @property
    def url(self) -> str:
        return self.settings.broker_url or ""


@contextmanager
def ticking(stand: Stand, name: str) -> Iterator[_Place]:
    with stand.delivery(name) as at:
        settings = attrs.evolve(at.settings, redis_url=stand.redis_url, redis_prefix=name)
        with connect(settings) as hybrid:
            hybrid.consume(print, queue=at.queue, bind=BIND).declare()
        yield _Place(settings, at.queue)


def run_relay(settings: Settings, polling: float | None, ready: Any) -> None:
    if polling is not None:
        relaying.POLL_FIRST = relaying.POLL_MOST = polling
        settings = attrs.evolve(settings, redis_prefix="nobody")
    with connect(settings) as hybrid:
        relay = hybrid.relay()
        relay.start()
        ready.release()
        while relay.running:
            sleep(1.0)


def _consume(settings: Settings, queue: str, told: Connection, ready: Any) -> None:
    report = Report(told)

    def handle(event: Event, _: Any) -> None:
        report(event.payload["number"] if event.message_id is None else event.message_id)

    with connect(settings) as hybrid:
        consumer = hybrid.consume(handle, queue=queue, bind=BIND, batch=_BATCH)
        consumer.start()
        ready.release()
        while consumer.running:
            sleep(1.0)


def _take(url: str, queue: str, told: Connection, ready: Any) -> None:
    """What py-amqp alone hears."""
    report = Report(told)
    connection = by_hand.connected(url)
    channel = connection.channel()

    def handle(message: Any) -> None:
        report(int(message.properties["message_id"]))
        channel.basic_ack(message.delivery_tag)

    channel.basic_qos(0, 50, False)
    channel.basic_consume(queue, callback=handle)
    ready.release()
    while True:
        connection.drain_events()


class _Ticks:
    """Sends events at a rate, so many at a time, and knows when each arrived."""

    def __init__(self, send: Send, rate: float, heard: Connection, per: int) -> None:
        self._send = send
        self._rate = rate
        self._per = per
        self._heard = heard
        self._last = 0
        self._lock = Lock()
        self._began: dict[int, float] = {}
        self._arrived: dict[int, Future[float]] = {}
        self._pool = ThreadPoolExecutor(_WRITERS)
        Thread(target=self._listen, daemon=True).start()

    def inputs(self, calls: int) -> list[Future[float]]:
        """Begin that many, in time with the rate, and return what to wait for."""
        numbers = range(self._last + 1, self._last + 1 + calls)
        self._last += calls
        waiting: list[Future[float]] = [Future() for _ in numbers]
        self._arrived |= dict(zip(numbers, waiting, strict=True))
        began = monotonic()
        for writer in range(_WRITERS):
            self._pool.submit(self._tick, numbers, writer, began)
        return waiting

    def _tick(self, numbers: range, writer: int, began: float) -> None:
        """One writer's share: by turns, each at its time, with nobody between to hand it over."""
        for turn in range(writer, -(-len(numbers) // self._per), _WRITERS):
            sleep(max(0.0, began + turn * self._per / self._rate - monotonic()))
            self._some(numbers[turn * self._per : (turn + 1) * self._per])

    def _some(self, numbers: Sequence[int]) -> None:
        try:
            began = self._send(numbers)
        except Exception as error:  # noqa: BLE001  (whoever waits for it gets it)
            for number in numbers:
                self._arrived[number].set_exception(error)
            return
        for number in numbers:
            self._settle(number, began=began)

    def _listen(self) -> None:
        while True:
            try:
                arrived = self._heard.recv()
            except (EOFError, OSError):
                return
            for number, at in arrived:
                self._settle(number, arrived=at)

    def _settle(self, number: int, *, began: float = 0.0, arrived: float = 0.0) -> None:
        """Of the two moments the second to be known makes the latency."""
        with self._lock:
            other = self._began.pop(number, None)
            if other is None:
                self._began[number] = began or -arrived
                return
        latency = arrived - other if arrived else -other - began
        self._arrived.pop(number).set_result(latency)

    def close(self) -> None:
        self._pool.shutdown()


def _wait(waiting: Future[float]) -> tuple[float, float]:
    return waiting.result(60), 0.0


@contextmanager
def processes(stand: Stand, *targets: Callable[[Any], Any]) -> Iterator[None]:
    """Each in a process of its own, all ready."""
    context = multiprocessing.get_context("spawn")
    ready = context.Semaphore(0)
    children = [context.Process(target=each, args=(ready,), daemon=True) for each in targets]
    for each in children:
        each.start()
    try:
        for _ in children:
            if not ready.acquire(timeout=60):
                raise RuntimeError("a process does not begin")
        stand.settle(1.0)
        yield
    finally:
        for each in children:
            each.kill()
            each.join()


@contextmanager
def delivered(
    stand: Stand,
    *,
    name: str,
    rate: float,
    per: int,
    polling: float | None = None,
    saving: bool = False,
) -> Iterator[Operation]:
    heard, told = multiprocessing.get_context("spawn").Pipe(duplex=False)
    with ticking(stand, name) as place, connect(place.settings) as hybrid:

        def send(numbers: Sequence[int]) -> float:
            with hybrid.transaction() as tx:
                if per == 1 and not saving:
                    channel_id = -1001 - numbers[0] % _CHANNELS
                    tx.publish(Event(_TOPIC, {"number": numbers[0]}, channel_id=channel_id))
                else:
                    tx.messages.save_batch([post(n, -1001 - n % _CHANNELS) for n in numbers])
                return monotonic()

        # A message of every month, with ids that are none of ours: the partitions are there.
        hybrid.messages.save_many(post(_OTHERS + n, -1) for n in range(1, 150_000, 1_440))
        ticks = _Ticks(send, rate, heard, per)
        with processes(
            stand,
            partial(run_relay, place.settings, polling),
            partial(_consume, place.settings, place.queue, told),
        ):
            yield Operation(call=_wait, inputs=ticks.inputs, tells=True)
        ticks.close()


@contextmanager
def _published(stand: Stand, *, name: str, rate: float, per: int) -> Iterator[Operation]:
    heard, told = multiprocessing.get_context("spawn").Pipe(duplex=False)
    mine = local()
    with ticking(stand, name) as place:

        def send(numbers: Sequence[int]) -> float:
            if not hasattr(mine, "channel"):
                mine.connection = by_hand.connected(place.url)
                mine.channel = mine.connection.channel()
            began = monotonic()
            for number in numbers:
                message = amqp.Message(b"x" * 200, delivery_mode=2, message_id=str(number))
                mine.channel.basic_publish(
                    message, exchange=place.settings.exchange, routing_key=_TOPIC, mandatory=True
                )
            return began

        ticks = _Ticks(send, rate, heard, per)
        with processes(stand, partial(_take, place.url, place.queue, told)):
            yield Operation(call=_wait, inputs=ticks.inputs, tells=True)
        ticks.close()


@contextmanager
def _by_hand(stand: Stand, *, name: str, rate: float, per: int) -> Iterator[Operation]:
    heard, told = multiprocessing.get_context("spawn").Pipe(duplex=False)
    with ticking(stand, name) as place:
        send = by_hand.writer(place.settings, _TOPIC, lambda number: -1001 - number % _CHANNELS)
        ticks = _Ticks(send, rate, heard, per)
        with processes(
            stand,
            partial(by_hand.relay, place.settings),
            partial(by_hand.consume, place.settings, place.queue, told),
        ):
            yield Operation(call=_wait, inputs=ticks.inputs, tells=True)
        ticks.close()


def _at(rate: int, per: int = 1) -> Benchmark:
    tens = "-in-tens" if per == 10 else ""
    name = f"bench_latency_{rate}_{per}"
    return Benchmark(
        id=f"latency-{rate}{tens}",
        what=f"from commit to handler at {rate} events a second, {per} in a transaction",
        contenders=(
            Contender("events", Role.OURS, partial(delivered, name=name, rate=rate, per=per)),
            Contender(
                "py-amqp to py-amqp",
                Role.LIMIT,
                partial(_published, name=f"{name}_raw", rate=rate, per=per),
                needs=_AMQP,
            ),
            Contender(
                "an outbox by hand",
                Role.FLOOR,
                partial(_by_hand, name=f"{name}_hand", rate=rate, per=per),
                needs=("psycopg", "redis", *_AMQP),
            ),
            Contender(
                "polling once a second",
                Role.ALTERNATIVE,
                partial(delivered, name=f"{name}_polling", rate=rate, per=per, polling=1.0),
            ),
        ),
        plan=Plan(rounds=4, calls=(6 if per == 1 else 4) * rate, warmup=2 * rate),
        quick=Plan(rounds=2, calls=3 * rate, warmup=rate),
        aim=Aim(most=0.010, most_p99=0.050),
    )


ROWS = (_at(50), _at(500), _at(500, per=10))
