"""RedisModel: what the cache protocol needs of Redis, in memory, with a clock of its own.

tests/contract holds it to the behaviour of a real server.
"""

import copy
import re
from collections.abc import Callable

from telegram_hybrid.schema.redis import scripts
from telegram_hybrid.schema.redis.scripts import Call

#: Stands for a value of another Redis type.
FOREIGN = object()

_VERSION = re.compile(rb'{"version":(\d+)')
_WINDOW = re.compile(
    rb'{"version":\d+,"schema":1,"until":([\d.]+),"cost":([\d.]+),"lo":(\d+),"hi":(\d+),'
    rb'"complete":([a-z]+),"messages":\[(.*)\]}',
    re.DOTALL,
)
_ID = re.compile(rb'"message_id":(\d+)')


class RedisModel:
    def __init__(self) -> None:
        self.now = 0.0
        self.data: dict[str, tuple[object, float | None]] = {}
        #: What was published: (topic, message).
        self.published: list[tuple[str, str]] = []
        self._scripts: dict[str, Callable[..., object]] = {
            scripts.LEASE.sha: self._lease,
            scripts.FILL.sha: self._fill,
            scripts.MARK.sha: self._mark,
            scripts.INVALIDATE.sha: self._invalidate,
        }

    def run(self, call: Call) -> object:
        return self._scripts[call.script.sha](call.keys, call.args)

    def get(self, key: str) -> bytes | None:
        value = self._value(key)
        return value if isinstance(value, bytes) else None

    def put(self, key: str, value: bytes, seconds: float | None = None) -> None:
        self.data[key] = (value, None if seconds is None else self.now + seconds)

    def put_foreign(self, key: str) -> None:
        self.data[key] = (FOREIGN, None)

    def delete(self, *keys: str) -> int:
        return sum(self.data.pop(key, None) is not None for key in keys)

    def seconds_left(self, key: str) -> float | None:
        """Return None for a missing key and infinity for one that does not expire."""
        if self._value(key) is None:
            return None
        expires = self.data[key][1]
        return float("inf") if expires is None else expires - self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def snapshot(self) -> dict[str, tuple[object, float | None]]:
        return copy.copy(self.data)

    def _value(self, key: str) -> object:
        value, expires = self.data.get(key, (None, None))
        if expires is not None and expires <= self.now:
            del self.data[key]
            return None
        return value

    def _lease(self, keys: tuple[str, ...], args: tuple[object, ...]) -> list[int]:
        (key, lease), (token, ms, undecodable) = keys, args
        discarded = 0
        value = self._value(key)
        if value is FOREIGN or (value is not None and undecodable == "1"):
            discarded = self.delete(key)
        elif value is not None and undecodable == "2":
            return [0, 0, 1]
        held = self._value(lease)
        lasts = self.seconds_left(lease) or 0.0
        if held is FOREIGN or lasts > int(str(ms)) / 100 or (held and len(held) > 64):  # type: ignore[arg-type]
            self.delete(lease)
            held = None
        if isinstance(held, bytes):
            if not held.endswith(b"+"):
                self.data[lease] = (held + b"+", self.data[lease][1])
            return [0, discarded, round((self.seconds_left(lease) or 0) * 1000)]
        self.put(lease, str(token).encode(), int(str(ms)) / 1000)
        return [1, discarded, 0]

    def _fill(self, keys: tuple[str, ...], args: tuple[object, ...]) -> int:
        (key, lease, tombstone), (token, as_of, value, ms, topic) = keys, args
        held = self.get(lease)
        name = str(token).encode()
        if held not in (name, name + b"+"):
            self.published.append((str(topic), key))
            return 0
        stone = self._tombstone(tombstone)
        refused = not value or (stone is not None and stone > int(str(as_of)))
        if not refused:
            self.put(key, value, int(str(ms)) / 1000)  # type: ignore[arg-type]
        self.delete(lease)
        if held != name:
            self.published.append((str(topic), key))
        return 0 if refused else 1

    def _mark(self, keys: tuple[str, ...], args: tuple[object, ...]) -> int:
        (held, generation, *others), (topic, previous) = keys, args
        half = len(others) // 2
        (window, *stale), (lease, *leases) = others[:half], others[half:]
        needed = None if previous == "" else int(str(previous))
        if needed is not None and self._version(window) == needed:
            self.data[held] = self.data.pop(window)
        elif needed is None or self._version(held) != needed:
            self.delete(held)
        self._forget(topic, window, lease)
        self.delete(generation)
        for key, its_lease in zip(stale, leases, strict=True):
            self._forget(topic, key, its_lease)
        return 1

    def _invalidate(self, keys: tuple[str, ...], args: tuple[object, ...]) -> int:
        held, tombstone, generation, window, *others = keys
        topic, version, ms, previous, capacity, values, seen_ms, seen, *rest = args
        number, count = int(str(version)), int(str(values))
        stale, (lease, *others) = others[:count], others[count:]
        leases, flags = others[:count], others[count:]
        least, patch = rest[:count], rest[count:]
        for key, its_lease, needed in zip(stale, leases, least, strict=True):
            has = self._version(key)
            if has is None or has < int(str(needed)):
                self._forget(topic, key, its_lease)
        self.delete(generation)
        has, aside = self._version(window), self._version(held)
        known = aside if has is None else has
        if known is None or known < number:
            base = window if has is not None else held
            left, fresh = self.seconds_left(base) or 0.0, None
            if previous != "" and known == int(str(previous)) and left != float("inf"):
                changed = zip(patch[::2], patch[1::2], strict=True)
                fresh = _patched(
                    self.get(base) or b"",
                    number,
                    int(str(capacity)),
                    {int(str(one)): text for one, text in changed},  # type: ignore[misc]
                )
            self._forget(topic, window, lease)
            self.delete(held)
            if fresh is not None:
                self.put(window, fresh, left)
        newest = max(number, self._tombstone(tombstone) or 0)
        self.put(tombstone, b"%d" % newest, int(str(ms)) / 1000)
        for key in flags:
            assert isinstance(seen, bytes)
            self.put(key, seen, int(str(seen_ms)) / 1000)
        return 1

    def _forget(self, topic: object, key: str, lease: str) -> None:
        holder = self.get(lease)
        self.delete(key, lease)
        if holder is not None and holder.endswith(b"+"):
            self.published.append((str(topic), key))

    def _tombstone(self, key: str) -> int | None:
        stone = self.get(key) or b""
        return int(stone) if stone.isdigit() and len(stone) <= 19 else None

    def _version(self, key: str) -> int | None:
        found = _VERSION.match(self.get(key) or b"")
        return int(found[1]) if found else None


def _patched(window: bytes, version: int, capacity: int, changed: dict[int, bytes]) -> bytes | None:
    found = _WINDOW.fullmatch(window)
    if found is None:
        return None
    until, cost, low, high, whole, body = found.groups()
    lo, hi, complete = int(low), int(high), whole == b"true"
    lines = {}
    for line in filter(None, body.split(b"\n")):
        number = _ID.search(line)
        if number is None:
            return None
        lines[int(number[1])] = line.removesuffix(b",")
    lines |= changed
    ids = sorted((i for i, line in lines.items() if line and (complete or i >= lo)), reverse=True)
    if len(ids) > capacity:
        ids, complete = ids[:capacity], False
    if ids:
        hi = ids[0]
        if complete or len(ids) == capacity:
            lo = ids[-1]
    return (
        b'{"version":%d,"schema":1,"until":%b,"cost":%b,"lo":%d,"hi":%d,"complete":%b,'
        b'"messages":[\n%b\n]}'
        % (
            version,
            until,
            cost,
            lo,
            hi,
            b"true" if complete else b"false",
            b",\n".join(lines[i] for i in ids),
        )
    )
