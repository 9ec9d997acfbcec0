"""Auditor: whether what is cached is what the database has, for a sample of our keys."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from itertools import islice
from time import sleep
from typing import Any, Protocol

import attrs
from redis import Redis
from redis.exceptions import RedisError

from telegram_hybrid.errors import RedisUnavailable
from telegram_hybrid.model import Message
from telegram_hybrid.schema.redis import values
from telegram_hybrid.schema.redis.keys import KeyName, Keys, Kind
from telegram_hybrid.schema.redis.values import Window

#: Seconds for which a value must have been older than the database to be reported: longer than a
#: relay takes to repair what a dead writer left, and a process to repeat what Redis missed.
SETTLE = 2.0
#: Differing keys that are named.
EXAMPLES = 10
_BATCH = 100
_KINDS = (Kind.MESSAGE, Kind.WINDOW, Kind.PAGE)
_SCAN = 1000


class Truth(Protocol):
    """What the database has. Committed rows only, each call in a snapshot that begins with it."""

    def messages(self, channel_id: int, ids: Sequence[int]) -> dict[int, Message]:
        """Return the stored ones of `ids`, deleted ones included."""

    def newest(self, channel_id: int, limit: int) -> Sequence[Message]:
        """Return the newest messages that are not deleted, newest first."""

    def page(self, channel_id: int, number: int) -> Sequence[Message]:
        """Return all messages of a page that are not deleted, newest first."""


@attrs.frozen(slots=True)
class Audit:
    """How many keys were compared, and how many were inconsistent: other than the database says,
    and had not caught up after `SETTLE` seconds. `examples` says of some what differs."""

    checked: int = 0
    inconsistent: int = 0
    examples: tuple[str, ...] = ()

    @property
    def per_million(self) -> float:
        """Inconsistent keys per million; 0.0 if none was checked."""
        return self.inconsistent / self.checked * 1e6 if self.checked else 0.0


@attrs.frozen(slots=True)
class Contents:
    """What there is of ours in Redis: keys by kind, and its memory in bytes (0: no limit)."""

    keys: dict[str, int]
    memory: int
    memory_limit: int
    policy: str
    evicted: int


class Auditor:
    """Audits what `redis` holds under `keys`. Raises `RedisUnavailable`."""

    def __init__(self, redis: Redis, keys: Keys, settle: float = SETTLE) -> None:
        self._redis = redis
        self._keys = keys
        self._settle = settle

    def audit(
        self, truth: Truth, sample: int, told: Callable[[int, int], object] = lambda *_: None
    ) -> Audit:
        """Compare a random sample of messages, windows and pages with the database.

        A writer that commits meanwhile causes no false alarm: what differs is looked at again
        after a moment, and counts only if it is still the same value. `told` is given how many
        keys were compared, and of how many.
        """
        with _translated():
            names = self._sample(sample)
            told(0, len(names))
            checked = 0
            suspects: dict[str, tuple[bytes, str]] = {}
            for some in _batches(names):
                stored: Any = self._redis.mget([self._keys.build(name) for name in some])
                pairs = [(n, data) for n, data in zip(some, stored, strict=True) if data]
                for name, data in pairs:
                    cached = _decode(name, data)
                    if cached is None:  # garbage, which its next reader discards
                        continue
                    checked += 1
                    why = _difference(name, cached, truth)
                    if why:
                        suspects[self._keys.build(name)] = (data, why)
                told(checked, len(names))
            found = self._unchanged(suspects) if suspects else []
        return Audit(checked, len(found), tuple(found[:EXAMPLES]))

    def contents(self) -> Contents:
        """Count our keys by kind. Goes through all keys of the server."""
        counts: dict[str, int] = {}
        with _translated():
            for key in self._redis.scan_iter(match=f"{self._keys.prefix}:*", count=_SCAN):
                name = self._keys.parse(key)
                kind = (name.guard or name.kind).value if name else "other"
                counts[kind] = counts.get(kind, 0) + 1
            memory, events = self._redis.info("memory"), self._redis.info("stats")
        return Contents(
            keys=dict(sorted(counts.items())),
            memory=memory["used_memory"],
            memory_limit=memory.get("maxmemory", 0),
            policy=memory.get("maxmemory_policy", ""),
            evicted=events.get("evicted_keys", 0),
        )

    def _sample(self, size: int) -> list[KeyName]:
        """Draw keys with equal chances (reservoir sampling, Vitter 1985, algorithm R)."""
        drawn: list[KeyName] = []
        met = 0
        for key in self._redis.scan_iter(match=f"{self._keys.prefix}:*", count=_SCAN):
            name = self._keys.parse(key)
            if name is None or name.guard is not None or name.kind not in _KINDS:
                continue
            met += 1
            if len(drawn) < size:
                drawn.append(name)
            elif (at := random.randrange(met)) < size:  # noqa: S311  (no secret)
                drawn[at] = name
        return drawn

    def _unchanged(self, suspects: dict[str, tuple[bytes, str]]) -> list[str]:
        """Say what differs of those that are the same still, after a moment."""
        sleep(self._settle)
        found = []
        for some in _batches(list(suspects)):
            for key, data in zip(some, self._redis.mget(some), strict=True):
                before, why = suspects[key]
                if data == before:
                    found.append(f"{key}: {why}")
        return found


def _decode(name: KeyName, data: bytes) -> values.Cached | Window | None:
    if name.kind is Kind.MESSAGE:
        return values.decode_message(data, name.channel_id, name.number or 0)
    found = values.decode_window(data, name.channel_id)
    return found[0] if found else None


def _difference(name: KeyName, cached: values.Cached | Window, truth: Truth) -> str | None:
    """Say how a value differs from the database; None if it does not."""
    channel_id, number = name.channel_id, name.number or 0
    if isinstance(cached, Window):
        if name.kind is Kind.PAGE:
            rows = truth.page(channel_id, number)
        else:
            rows = truth.newest(channel_id, len(cached.messages) + 1)
            if not cached.complete:
                rows = [row for row in rows if row.message_id >= cached.lo]
        return _lists(cached.messages, rows)
    message = cached.message
    row = truth.messages(channel_id, [number]).get(number)
    if _said(message) == _said(row):
        return None
    if message is None or row is None:
        return "cached, but not stored" if row is None else "stored, but cached as absent"
    return f"version {message.version} is cached, {row.version} is stored"


def _lists(cached: Iterable[Message], rows: Iterable[Message]) -> str | None:
    ours = {each.message_id: _said(each) for each in cached}
    theirs = {each.message_id: _said(each) for each in rows}
    differing = [i for i in sorted(ours.keys() | theirs.keys()) if ours.get(i) != theirs.get(i)]
    if not differing:
        return None
    return f"{len(differing)} messages differ, the first is {differing[0]}"


def _said(message: Message | None) -> bytes | None:
    """All of a message: two of them are equal already if their content is."""
    return message.to_json() if message is not None else None


def _batches(items: Sequence[Any]) -> Iterable[Any]:
    iterator = iter(items)
    while some := list(islice(iterator, _BATCH)):
        yield some


@contextmanager
def _translated() -> Any:
    try:
        yield
    except RedisUnavailable:
        raise
    except (RedisError, OSError) as error:
        raise RedisUnavailable(f"Redis failed while it was audited: {error}") from error
