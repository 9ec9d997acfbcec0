"""An explorer of interleavings: runs the real protocol generators in every order of their steps.

Each request is one atomic step, as it is for one channel's keys on a real Redis; a guarded load is
two, because its look at the channel's lock comes before its snapshot. A state reached before is
not walked again, so counts are of distinct states. A generator cannot be copied: every path is
replayed from the start.
"""

from collections.abc import Callable, Generator, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

from cachelab.redis_model import RedisModel
from telegram_hybrid.cache import writes
from telegram_hybrid.cache.protocol import Lifetimes, Protocol
from telegram_hybrid.cache.requests import (
    Await,
    Fill,
    Get,
    Grant,
    Invalidate,
    Lease,
    Load,
    Loaded,
    Mark,
)
from telegram_hybrid.model import Change, ChannelWrite, EventType, Message, MessageKey
from telegram_hybrid.schema.redis import scripts, values
from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.schema.redis.values import Window

KEYS = Keys()
LIVES = Lifetimes()
CHANNEL = -1001649127710
SENT = datetime(2026, 11, 1, tzinfo=UTC)
#: Enough for any history here; `complete` stays True, so a missing message shows.
WINDOW_SIZE = 100

Steps = Generator[Any, Any, Any]


def message(message_id: int, version: int) -> Message:
    return Message(
        channel_id=CHANNEL, message_id=message_id, sent_at=SENT, text="x", version=version
    )


@attrs.frozen
class Lock:
    """A writer's first step: it waits for the channel's lock. Reply: the channel's version."""


@attrs.frozen
class Commit:
    """A writer's step: the row becomes visible and the lock is free."""

    message_id: int
    version: int


@attrs.frozen
class Died:
    """The step of a server that finds a dead writer's connection: the lock is free."""


@attrs.frozen
class Committed:
    """The relay's first step: it waits until that version is committed."""

    version: int


@attrs.frozen
class Plain:
    """A step on Redis outside of the protocol: for the adversary and for naive caches."""

    do: Callable[[RedisModel], object]


@attrs.frozen
class Replicate:
    """The replica has everything up to now."""


@attrs.frozen
class Failover:
    """The replica becomes the master: later writes are lost, acknowledged or not.

    From here on every process goes past the cache, until `Replay`.
    """


@attrs.frozen
class Replay:
    """Every process repeats the invalidations that were acknowledged to it."""


@attrs.frozen
class _Rows:
    """The second half of a guarded load."""

    load: Load
    as_of: int
    quiet: bool


class World:
    """A database, a Redis and some processes, of which one makes a step at a time."""

    def __init__(self, **processes: Steps) -> None:
        self.redis = RedisModel()
        self.rows: dict[int, int] = {}
        #: The highest version committed in the channel, and who holds its lock.
        self.head = 0
        self.locked_by: str | None = None
        #: The version that the last applied invalidation of each message announced.
        self.applied: dict[int, int] = {}
        self.answers: dict[str, Any] = {}
        #: What `applied` and `rows` were when each reader began.
        self.began: dict[str, dict[int, int]] = {}
        self.visible: dict[str, dict[int, int]] = {}
        self.loads = 0
        self.trusted = True
        self._replica = RedisModel().data
        self._acknowledged: list[ChannelWrite] = []
        self._history: dict[str, str] = dict.fromkeys(processes, "")
        self._processes = processes
        self._requests = {name: next(steps) for name, steps in processes.items()}

    def runnable(self) -> list[str]:
        return [name for name, request in self._requests.items() if self._can_run(request)]

    def _can_run(self, request: Any) -> bool:
        match request:
            case Lock():
                return self.locked_by is None
            case Committed(version):
                return self.head >= version
        return True

    def step(self, name: str) -> None:
        self.began.setdefault(name, dict(self.applied))
        self.visible.setdefault(name, dict(self.rows))
        request = self._requests.pop(name)
        if isinstance(request, Load) and request.guarded:
            quiet = self.locked_by is None
            self._history[name] += f"{self.head},{quiet};"
            self._requests[name] = _Rows(request, self.head, quiet)
            return
        past = not self.trusted and isinstance(request, Get | Lease | Fill)
        reply = None if past else self._perform(name, request)
        self._history[name] += f"{reply!r};"
        try:
            self._requests[name] = self._processes[name].send(reply)
        except StopIteration as done:
            self.answers[name] = done.value

    def signature(self) -> object:
        redis = (self.redis.now, sorted(self.redis.data.items(), key=lambda item: item[0]))
        replica = sorted(self._replica.items(), key=lambda item: item[0])
        facts = (self.rows, self.head, self.locked_by, sorted(self.applied.items()))
        facts = (*facts, self.trusted, replica, self._acknowledged)
        seen = (sorted(self.began.items()), sorted(self.visible.items()))
        return repr((redis, facts, seen, self._history))

    def cached_version(self, message_id: int) -> int | None:
        """The version that a hit would give; 0 if it would say that there is no such message."""
        data = self.redis.get(KEYS.message(CHANNEL, message_id))
        found = data and values.decode_message(data, CHANNEL, message_id)
        return None if not found else found.message.version if found.message else 0

    def cached_window(self) -> Window | None:
        data = self.redis.get(KEYS.window(CHANNEL))
        found = values.decode_window(data, CHANNEL) if data else None
        return found[0] if found else None

    def _perform(self, name: str, request: Any) -> Any:  # noqa: C901  (one case per request)
        redis = self.redis
        match request:
            case Lock():
                self.locked_by = name
                return self.head
            case Commit(message_id, version):
                self.rows[message_id] = self.head = version
                self.locked_by = None
            case Died():
                self.locked_by = None
            case Plain(do):
                return do(redis)
            case Replicate():
                self._replica = dict(redis.data)
            case Failover():
                redis.data, self.trusted = dict(self._replica), False
            case Replay():
                self._invalidate(self._acknowledged)
                self.trusted = True
            case Get(keys):
                return [redis.get(key) for key in keys]
            case Await() | Committed():
                pass
            case Load() as load:
                return Loaded(self._read(load))
            case _Rows(load, as_of, quiet):
                self.loads += 1
                return Loaded(self._read(load), as_of, quiet)
            case Lease([e]):
                call = scripts.lease(KEYS, e.key, e.token, e.seconds, undecodable=e.undecodable)
                granted, _, left = redis.run(call)
                return [Grant(granted == 1, left / 1000)]
            case Fill(channel, [e]):
                return [
                    redis.run(
                        scripts.fill(KEYS, channel, e.key, e.token, e.as_of, e.value, e.seconds)
                    )
                    == 1
                ]
            case Mark(written):
                for call in writes.marks(KEYS, written):
                    redis.run(call)
            case Invalidate(written):
                self._invalidate(written)
                self._acknowledged = [*self._acknowledged, *written]
            case _:
                raise AssertionError(f"nobody explores {request}")
        return None

    def _invalidate(self, written: Sequence[ChannelWrite]) -> None:
        for call in writes.invalidations(
            KEYS, written, tombstone=LIVES.tombstone, capacity=WINDOW_SIZE
        ):
            self.redis.run(call)
        for write in written:
            for change in write.changes:
                known = self.applied.get(change.key.message_id, 0)
                self.applied[change.key.message_id] = max(change.version, known)

    def _read(self, load: Load) -> Any:
        if load.ids:
            return {i: message(i, self.rows[i]) for i in load.ids if i in self.rows}
        ids = sorted(self.rows, reverse=True)
        found = [message(i, self.rows[i]) for i in ids]
        return Window.of(found, WINDOW_SIZE, self.head)


def protocol(name: str, *, early: bool = False) -> Protocol:
    """A reader's view of the protocol; with `early` it always refreshes what it hits."""
    tokens = iter(f"{name}{number}" for number in range(9))
    return Protocol(
        keys=KEYS,
        lives=LIVES,
        new_token=lambda: next(tokens),
        now=lambda: 2e9 if early else 1000.0,
        chance=lambda: 0.0,
    )


def reader(name: str, message_id: int = 7, *, early: bool = False) -> Steps:
    return protocol(name, early=early).message(CHANNEL, message_id)


def window_reader(name: str) -> Steps:
    return protocol(name).window(CHANNEL, 1)


def written(message_id: int, version: int, previous: int | None, kind: EventType) -> ChannelWrite:
    change = Change(MessageKey(CHANNEL, message_id), version, kind, message(message_id, version))
    return ChannelWrite(CHANNEL, version, (change,), previous)


def writer(
    message_id: int = 7,
    kind: EventType = EventType.EDITED,
    *,
    marks: bool = True,
    dies: str = "never",
) -> Steps:
    """Lock, mark, commit, invalidate; `dies` "before" or "after" the commit."""
    head = yield Lock()
    write = written(message_id, head + 1, head, kind)
    if marks:
        yield Mark([write])
    if dies == "before":
        yield Died()
        return
    yield Commit(message_id, head + 1)
    if dies != "after":
        yield Invalidate([write])


def relay(version: int, message_id: int = 7, kind: EventType = EventType.EDITED) -> Steps:
    """Invalidate what was committed, whether or not its writer has."""
    yield Committed(version)
    yield Invalidate([written(message_id, version, None, kind)])


def adversary(*losses: Callable[[RedisModel], object]) -> Steps:
    """Let Redis lose things on its own: by eviction, expiry or flush."""
    for loss in losses:
        yield Plain(loss)


def failover() -> Steps:
    """Lose what was acknowledged after some moment, then replay the invalidations."""
    yield Replicate()
    yield Failover()
    yield Replay()


def evict(key: str) -> Callable[[RedisModel], object]:
    return lambda redis: redis.delete(key)


def flush(redis: RedisModel) -> None:
    redis.data.clear()


def expire_leases(redis: RedisModel) -> None:
    redis.wait(LIVES.lease)


@attrs.define
class Census:
    states: int = 0
    terminal: int = 0
    stale: int = 0

    def __str__(self) -> str:
        return f"{self.stale} stale of {self.terminal} terminal states ({self.states} states)"


def explore(
    build: Callable[[], World],
    is_stale: Callable[[World], bool],
    check: Callable[[World], None] = lambda _: None,
) -> Census:
    """Walk every interleaving; `check` sees each state, `is_stale` each terminal one."""
    census = Census()
    known: set[object] = set()
    pending: list[tuple[str, ...]] = [()]
    while pending:
        trace = pending.pop()
        world = build()
        for name in trace:
            world.step(name)
        while True:
            check(world)
            if (signature := world.signature()) in known:
                break
            known.add(signature)
            census.states += 1
            turns = world.runnable()
            if not turns:
                census.terminal += 1
                census.stale += is_stale(world)
                break
            pending.extend((*trace, other) for other in turns[1:])
            world.step(turns[0])
            trace = (*trace, turns[0])
    return census
