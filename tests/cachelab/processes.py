"""The processes that the explorer interleaves, and what a hit may serve between their steps."""

from collections.abc import Callable
from typing import Any

from cachelab.history import CAPACITY, CHANNEL, KEYS, LIVES, Log, head, living, rows, written
from cachelab.redis_model import RedisModel
from cachelab.steps import (
    CatchUp,
    Choose,
    Commit,
    Failover,
    Lock,
    Outbox,
    Plain,
    Replay,
    Replicate,
    Shared,
    Steps,
    Unlock,
)
from telegram_hybrid.cache.protocol import Protocol
from telegram_hybrid.cache.requests import Invalidate, Lease, Load, Mark
from telegram_hybrid.model import EventType
from telegram_hybrid.schema.redis import values
from telegram_hybrid.schema.redis.values import Life

MESSAGE = KEYS.message(CHANNEL, 7)
WINDOW = KEYS.window(CHANNEL)


class _Eager(Protocol):
    """Chance always has it refresh what it hits."""

    def _is_early(self, life: Life) -> bool:
        return True


def _protocol(kind: type[Protocol] = Protocol) -> Protocol:
    return kind(
        keys=KEYS, lives=LIVES, new_token=lambda: "T", now=lambda: 1000.0, chance=lambda: 0.0
    )


def reader() -> Steps:
    return _protocol().message(CHANNEL, 7)


def early_reader() -> Steps:
    return _protocol(_Eager).message(CHANNEL, 7)


def window_reader() -> Steps:
    return _protocol().window(CHANNEL, 1)


def early_window_reader() -> Steps:
    return _protocol(_Eager).window(CHANNEL, 1)


def hasty_reader() -> Steps:
    """Loads before it has the lease."""
    reading = reader()
    request = next(reading)
    loaded = None
    while True:
        if isinstance(request, Lease):
            loaded = yield Load([7], guarded=True)
        reply = loaded if isinstance(request, Load) and request.guarded else (yield request)
        try:
            request = reading.send(reply)
        except StopIteration:
            return


Act = Callable[[Log], tuple[int, EventType]]


def edit(log: Log) -> tuple[int, EventType]:
    """Save message 7: for the first time, if it is not stored."""
    return 7, EventType.EDITED if 7 in rows(log) else EventType.RECEIVED


def receive(log: Log) -> tuple[int, EventType]:
    """Save a message above all others."""
    return max(rows(log), default=0) + 1, EventType.RECEIVED


def receive_late(log: Log) -> tuple[int, EventType]:
    """Save message 6 after messages above it: within the window."""
    return 6, EventType.EDITED if 6 in rows(log) else EventType.RECEIVED


def receive_below(log: Log) -> tuple[int, EventType]:
    """Save message 2, below the window."""
    return 2, EventType.EDITED if 2 in rows(log) else EventType.RECEIVED


def delete(log: Log) -> tuple[int, EventType]:
    """Delete the newest message."""
    return living(log)[0].message_id, EventType.DELETED


def writing(
    *acts: Act, marks: tuple[bool, ...] = (True,), tells: tuple[bool, ...] = (True,), dies: bool
) -> Callable[[], Steps]:
    """A writer: lock, mark, commit, invalidate. It does one of `acts`.

    `marks` and `tells` say whether its mark and its invalidation reach Redis: (True, False) for
    both ways. With `dies` it may die before its commit, and after it.
    """

    def writer() -> Steps:
        log: Log = yield Lock()
        message_id, kind = (yield Choose(acts))(log)
        write = written((*log, (head(log) + 1, message_id, kind)), len(log))
        if (yield Choose(marks)):
            yield Mark([write])
        if dies and (yield Choose((False, True))):
            yield Unlock()
            return
        yield Commit(message_id, kind)
        if (yield Choose(tells)) and not (dies and (yield Choose((False, True)))):
            yield Invalidate([write])

    return writer


def relay(begun: int, times: int) -> Callable[[], Steps]:
    """Invalidates each commit from number `begun` on, at any time after it, whoever has already."""

    def relay() -> Steps:
        for index in range(begun, begun + times):
            write = yield Outbox(index)
            yield Invalidate([write])

    return relay


def losing(*losses: Callable[[RedisModel], object], times: int = 1) -> Callable[[], Steps]:
    """Redis loses something on its own, at any time: one of `losses`."""

    def adversary() -> Steps:
        for _ in range(times):
            yield Plain((yield Choose(losses)))

    return adversary


def failover(*, replays: bool = True) -> Callable[[], Steps]:
    """Lose what was acknowledged after some moment, then replay the invalidations."""

    def failover() -> Steps:
        yield Replicate()
        yield Failover()
        orders = ("oldest first", "newest first") if replays else ("none",)
        yield Replay((yield Choose(orders)))

    return failover


def standby(times: int) -> Callable[[], Steps]:
    """Catches up with `times` commits, at any time."""

    def standby() -> Steps:
        for _ in range(times):
            yield CatchUp()

    return standby


def _evict(key: str) -> Callable[[RedisModel], object]:
    return lambda redis: redis.delete(key)


def _flush(redis: RedisModel) -> None:
    redis.data.clear()


def losses_of(key: str) -> list[Callable[[RedisModel], object]]:
    """What Redis can lose of a value: each key by eviction or expiry, and all at once."""
    names = [key, KEYS.lease(key), KEYS.tombstone(CHANNEL)]
    if key == WINDOW:
        names.append(KEYS.held(key))
    return [*map(_evict, names), _flush]


def message_is(shared: Shared, log: Log) -> bool:
    """Whether what a hit would serve of message 7 is what these commits left of it, or nothing."""
    data = shared.get(MESSAGE)
    found = values.decode_message(data, CHANNEL, 7) if data else None
    if found is None:
        return data is None
    row = rows(log).get(7)
    return (found.message and found.message.version) == (row and row.version)


def window_is(shared: Shared, log: Log) -> bool:
    """Whether the window that a hit would serve holds what these commits left, no more, no less."""
    data = shared.get(WINDOW)
    found = values.decode_window(data, CHANNEL) if data else None
    if found is None:
        return data is None
    window = found[0]
    expected = [row for row in living(log) if window.complete or row.message_id >= window.lo]
    return len(window.messages) <= CAPACITY and [
        (row.message_id, row.version) for row in window.messages
    ] == [(row.message_id, row.version) for row in expected]


Judge = Callable[[Shared, Log], bool]


def as_committed(judge: Judge) -> Callable[[Shared], bool]:
    """A hit is as new as the last commit."""
    return lambda shared: not shared.trusted or judge(shared, shared.log)


def as_invalidated(judge: Judge) -> Callable[[Shared], bool]:
    """A hit is not older than the last applied invalidation (P5)."""

    def is_safe(shared: Shared) -> bool:
        log = shared.log
        return not shared.trusted or any(
            judge(shared, log[:count])
            for count in range(len(log) + 1)
            if count == len(log) or head(log[:count]) >= shared.applied
        )

    return is_safe


def naive_reader() -> Steps:
    found = yield Plain(lambda redis: redis.get(MESSAGE))
    if found is None:
        loaded = yield Load([7], guarded=True)
        yield Plain(lambda redis: redis.put(MESSAGE, _encoded(loaded), 3600))


def cautious_reader() -> Steps:
    """Set only if what is there is not newer: does not help, because nothing is there."""
    found = yield Plain(lambda redis: redis.get(MESSAGE))
    if found is None:
        loaded = yield Load([7], guarded=True)

        def set_if_newer(redis: RedisModel) -> None:
            stored = redis.get(MESSAGE)
            held = stored and values.decode_message(stored, CHANNEL, 7)
            if not held or held.message.version < loaded.value[7].version:
                redis.put(MESSAGE, _encoded(loaded), 3600)

        yield Plain(set_if_newer)


def naive_writer() -> Steps:
    log = yield Lock()
    yield Commit(*edit(log))
    yield Plain(_evict(MESSAGE))


def _encoded(loaded: Any) -> bytes:
    return values.encode_message(loaded.value[7], Life(3600, 0))
