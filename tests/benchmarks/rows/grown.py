"""growth: what the same work costs on a store of a million messages, beside one of ten thousand.

Both stores stand on the same servers and are asked in turns, without Redis: a hit of the cache
does not see the store at all. With TELEGRAM_HYBRID_BENCH_LONG=1 the larger one holds ten million,
which take half an hour to save.

`growth-get` asks for as many messages of both, spread over the whole store and read once before: a
million messages are more than the 512 MB of PostgreSQL's buffers, and what is asked for at random
among them is fetched from the kernel or the disk, a page a message, whoever asks. `growth-get-any`
does just that. Beside it psycopg asks for the same rows by a prepared statement that knows when
each was sent: what these take longer in the larger store, everybody takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import attrs
import psycopg
import stand as delivery

from benchmarks.benchmark import Aim, Benchmark, Bound, Contender, Operation, Plan, Role
from benchmarks.machine import LONG
from benchmarks.posts import CHANNEL, post
from benchmarks.rows.relayed import Place, delivering, relayed
from benchmarks.stand import Stand
from telegram_hybrid.hybrid import Hybrid, connect
from telegram_hybrid.model import Message

_SMALL = (10_000, 2_000, 200)
_LARGE = (10_000_000 if LONG else 1_000_000, 30_000, 1_000)
_EVENTS = (10_000, 2_000, 200)
#: A post a minute, and more of them where that would be more than two years.
_EVERY, _MOST = timedelta(minutes=1), timedelta(days=730)
#: How many messages are asked for again and again.
_ASKED = 2_000


@attrs.frozen
class _Store:
    """So many messages of one channel, the newest of them of today, and where events go."""

    count: int
    first: datetime
    at: delivery.Stand
    hybrid: Hybrid

    def sent(self, number: int) -> datetime:
        """When that message was sent."""
        return self.first + number * min(_EVERY, _MOST / self.count)


Size = Callable[[Stand], int]
Opener = Callable[[Stand], AbstractContextManager[Operation]]


def _small(stand: Stand) -> int:
    return stand.sized(_SMALL)


def _large(stand: Stand) -> int:
    return stand.sized(_LARGE)


def _store(stand: Stand, size: Size) -> _Store:
    """Fill it when it is first asked for; it stays for the other rows."""
    count = size(stand)
    return stand.kept(f"grown-{count}", lambda: _filled(stand, count))


@contextmanager
def _filled(stand: Stand, count: int) -> Iterator[_Store]:
    with stand.delivery(f"bench_grown_{count}") as at, connect(at.settings) as hybrid:
        store = _Store(count, datetime.now(UTC) - min(count * _EVERY, _MOST), at, hybrid)
        hybrid.messages.save_many(
            attrs.evolve(post(number), sent_at=store.sent(number)) for number in range(1, count + 1)
        )
        at.execute("TRUNCATE {s}.outbox")  # announced long ago
        with stand.psycopg() as connection:
            connection.execute("VACUUM ANALYZE")
        stand.settle(10.0)
        yield store


def _getting(size: Size) -> Opener:
    @contextmanager
    def opened(stand: Stand) -> Iterator[Operation]:
        store, random = _store(stand, size), Random(1)
        asked = range(1, store.count + 1, max(1, store.count // _ASKED))
        for number in asked:
            _found(store.hybrid, number)
        yield Operation(
            call=partial(_found, store.hybrid),
            inputs=lambda calls: random.choices(asked, k=calls),
        )

    return opened


def _getting_any(size: Size) -> Opener:
    @contextmanager
    def opened(stand: Stand) -> Iterator[Operation]:
        store = _store(stand, size)
        yield Operation(call=partial(_found, store.hybrid), inputs=_any(store))

    return opened


def _selecting_any(size: Size) -> Opener:
    @contextmanager
    def opened(stand: Stand) -> Iterator[Operation]:
        store = _store(stand, size)
        statement = (
            f"SELECT * FROM {store.hybrid.settings.database_schema}.messages"
            " WHERE channel_id = %s AND message_id = %s AND sent_at = %s"
        )

        def call(connection: psycopg.Connection[Any], number: int) -> None:
            key = (CHANNEL, number, store.sent(number))
            if not connection.execute(statement, key).fetchall():
                raise RuntimeError(f"message {number} is not there")

        with stand.psycopg() as connection:
            yield Operation(call=partial(call, connection), inputs=_any(store))

    return opened


def _any(store: _Store) -> Callable[[int], Sequence[int]]:
    random = Random(1)
    return lambda calls: random.choices(range(1, store.count + 1), k=calls)


def _found(hybrid: Hybrid, number: int) -> Message:
    found = hybrid.messages.get(CHANNEL, number)
    if found is None:
        raise RuntimeError(f"message {number} is not there")
    return found


def _reading_latest(size: Size) -> Opener:
    @contextmanager
    def opened(stand: Stand) -> Iterator[Operation]:
        hybrid = _store(stand, size).hybrid
        yield Operation(call=lambda _: len(hybrid.messages.latest(CHANNEL, limit=100)))

    return opened


def _saving(size: Size) -> Opener:
    @contextmanager
    def opened(stand: Stand) -> Iterator[Operation]:
        store = _store(stand, size)
        (newest,) = store.hybrid.messages.latest(CHANNEL, limit=1)
        last = newest.message_id

        def inputs(calls: int) -> list[Message]:
            nonlocal last
            now, first = datetime.now(UTC), last + 1
            last += calls
            return [attrs.evolve(post(n), sent_at=now) for n in range(first, last + 1)]

        yield Operation(call=store.hybrid.messages.save, inputs=inputs)
        store.at.execute("TRUNCATE {s}.outbox")

    return opened


def _relaying(size: Size) -> Opener:
    @contextmanager
    def opened(stand: Stand) -> Iterator[Operation]:
        at = _store(stand, size).at
        with delivering(relayed)(Place(at, at, stand.sized(_EVENTS))) as operation:
            yield operation

    return opened


def _row(
    name: str,
    what: str,
    work: Callable[[Size], Opener],
    *plans: Plan,
    others: Sequence[Contender] = (),
    **more: Any,
) -> Benchmark:
    plan, quick = plans
    return Benchmark(
        id=f"growth-{name}",
        what=f"{what} in a store of {_LARGE[0]:,} messages ({_LARGE[1]:,} with --quick),"
        f" beside one of {_SMALL[0]:,} ({_SMALL[1]:,})",
        contenders=(
            Contender("the larger store", Role.OURS, work(_large)),
            Contender("the smaller store", Role.LIMIT, work(_small)),
            *others,
        ),
        plan=plan,
        quick=quick,
        aim=Aim(limit=1.3),
        **more,
    )


_OFTEN = Plan(rounds=30, calls=50, warmup=100), Plan(rounds=10, calls=20, warmup=20)
_SELDOM = Plan(rounds=7, calls=1, warmup=1), Plan(rounds=2, calls=1, warmup=1)
_LARGER_BY_HAND, _SMALLER_BY_HAND = "its row, the larger store", "its row, the smaller store"

ROWS = (
    _row(
        "get", f"one of {_ASKED:,} messages by id, from the database's memory,", _getting, *_OFTEN,
    ),
    _row(
        "get-any", "any message by id, from the database or its disk,", _getting_any, *_OFTEN,
        others=(
            Contender(_LARGER_BY_HAND, Role.FLOOR, _selecting_any(_large), needs=("psycopg",)),
            Contender(_SMALLER_BY_HAND, Role.FLOOR, _selecting_any(_small), needs=("psycopg",)),
        ),
        bound=Bound(
            _LARGER_BY_HAND,
            "so much longer one statement takes there that knows channel, id and time",
            beyond=_SMALLER_BY_HAND,
        ),
    ),
    _row(
        "latest", "the 100 newest, from the database,", _reading_latest, *_OFTEN,
        expected=lambda _: 100,
    ),
    _row("save", "saving a new message", _saving, *_OFTEN),
    _row("relay", "relaying an event", _relaying, *_SELDOM),
)  # fmt: skip
