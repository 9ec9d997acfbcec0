"""An explorer of interleavings: runs the real protocol generators in every order of their steps.

Each request is one atomic step, as it is for a single key on a real Redis. A state reached before
is not walked again, so counts are of distinct states. A generator cannot be copied: every path is
replayed from the start.
"""

from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import Any

import attrs

from cachelab.redis_model import RedisModel
from telegram_hybrid.cache import protocol
from telegram_hybrid.cache.protocol import Fill, Flag, Get, Invalidate, Lease, Lifetimes, Load
from telegram_hybrid.model import Change, EventType, Message, MessageKey
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
class Commit:
    """A writer's step: the row becomes visible. Reply: its version.

    None stands for the next one, drawn under the row's lock.
    """

    message_id: int
    version: int | None = None


@attrs.frozen
class Plain:
    """A step on Redis outside of the protocol: for the adversary and for naive caches."""

    do: Callable[[RedisModel], object]


class World:
    """A database, a Redis and some processes, of which one makes a step at a time."""

    def __init__(self, **processes: Steps) -> None:
        self.redis = RedisModel()
        self.rows: dict[int, int] = {}
        #: The version that the last applied invalidation of each key announced.
        self.applied: dict[str, int] = {}
        self.answers: dict[str, Any] = {}
        #: What `applied` was when each reader began.
        self.began: dict[str, dict[str, int]] = {}
        self._history: dict[str, str] = dict.fromkeys(processes, "")
        self._processes = processes
        self._requests = {name: next(steps) for name, steps in processes.items()}

    def runnable(self) -> list[str]:
        return list(self._requests)

    def step(self, name: str) -> None:
        self.began.setdefault(name, dict(self.applied))
        request = self._requests.pop(name)
        reply = self._perform(request)
        self._history[name] += (
            f"{reply!r};" if not isinstance(request, Load) else f"{sorted(self.rows.items())};"
        )
        try:
            self._requests[name] = self._processes[name].send(reply)
        except StopIteration as done:
            self.answers[name] = done.value

    def signature(self) -> object:
        redis = (self.redis.now, sorted(self.redis.data.items()))
        began = sorted((name, sorted(versions.items())) for name, versions in self.began.items())
        return repr((redis, self.rows, sorted(self.applied.items()), began, self._history))

    def cached_version(self, message_id: int) -> int | None:
        data = self.redis.get(KEYS.message(CHANNEL, message_id))
        found = data and values.decode_message(data, CHANNEL, message_id)
        return found.version if found else None

    def cached_window(self) -> Window | None:
        data = self.redis.get(KEYS.window(CHANNEL))
        return values.decode_window(data, CHANNEL) if data else None

    def _perform(self, request: Any) -> Any:  # noqa: C901  (one case per kind of request)
        redis = self.redis
        match request:
            case Commit(message_id, version):
                self.rows[message_id] = version or self.rows[message_id] + 1
                return self.rows[message_id]
            case Plain(do):
                return do(redis)
            case Get(keys):
                return [redis.get(key) for key in keys]
            case Load([]):
                ids = sorted(self.rows, reverse=True)
                return Window.of([message(i, self.rows[i]) for i in ids], WINDOW_SIZE)
            case Load(ids):
                return {i: message(i, self.rows[i]) for i in ids if i in self.rows}
            case Lease([e]):
                call = scripts.lease(KEYS, e.key, e.token, e.seconds, undecodable=e.undecodable)
                return [redis.run(call)[0] == 1]
            case Fill([e]):
                redis.run(scripts.fill(KEYS, e.key, e.token, e.version, e.value, e.seconds))
            case Invalidate(entries):
                for e in entries:
                    redis.run(scripts.invalidate(KEYS, e.key, e.version, e.seconds))
                    self.applied[e.key] = max(e.version, self.applied.get(e.key, 0))
            case Flag():
                raise AssertionError("a flag needs no exploring")
        return None


def reader(name: str, message_id: int = 7) -> Steps:
    return protocol.read_messages(KEYS, LIVES, CHANNEL, [message_id], lambda: name)


def window_reader(name: str) -> Steps:
    return protocol.read_window(KEYS, LIVES, CHANNEL, lambda: name)


def writer(
    version: int | None = None, message_id: int = 7, kind: EventType = EventType.EDITED
) -> Steps:
    """Commit a row, then apply what the protocol decides.

    Its keys go in one step, because no reader here looks at two of them.
    """
    version = yield Commit(message_id, version)
    change = Change(MessageKey(CHANNEL, message_id), version, kind)
    yield protocol.invalidation(KEYS, LIVES, [change])


def adversary(*losses: Callable[[RedisModel], object]) -> Steps:
    """Let Redis lose things on its own: by eviction, expiry or flush."""
    for loss in losses:
        yield Plain(loss)


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
