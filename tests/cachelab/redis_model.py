"""RedisModel: what the lease protocol needs of Redis, in memory, with a clock of its own.

tests/contract/test_redis_scripts.py holds it to the behaviour of a real server.
"""

from collections.abc import Callable

from telegram_hybrid.schema.redis import scripts
from telegram_hybrid.schema.redis.scripts import Call

#: Stands for a value of another Redis type.
FOREIGN = object()


class RedisModel:
    def __init__(self) -> None:
        self.now = 0.0
        self.data: dict[str, tuple[object, float | None]] = {}
        self._scripts: dict[str, Callable[..., object]] = {
            scripts.LEASE.sha: self._lease,
            scripts.FILL.sha: self._fill,
            scripts.INVALIDATE.sha: self._invalidate,
        }

    def run(self, call: Call) -> object:
        return self._scripts[call.script.sha](*call.keys, *call.args)

    def get(self, key: str) -> bytes | None:
        value = self._value(key)
        return value if isinstance(value, bytes) else None

    def put(self, key: str, value: bytes, seconds: float | None = None) -> None:
        self.data[key] = (value, None if seconds is None else self.now + seconds)

    def put_foreign(self, key: str) -> None:
        self.data[key] = (FOREIGN, None)

    def delete(self, key: str) -> int:
        return 1 if self.data.pop(key, None) else 0

    def seconds_left(self, key: str) -> float | None:
        """Return None for a missing key and infinity for one that does not expire."""
        if self._value(key) is None:
            return None
        expires = self.data[key][1]
        return float("inf") if expires is None else expires - self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def _value(self, key: str) -> object:
        value, expires = self.data.get(key, (None, None))
        if expires is not None and expires <= self.now:
            del self.data[key]
            return None
        return value

    def _guard(self, key: str) -> str | None:
        value = self.get(key)
        return None if value is None else value.decode()

    def _lease(self, key: str, lease: str, token: str, ms: int, undecodable: str) -> list[int]:
        discarded = 0
        value = self._value(key)
        if value is FOREIGN or (value is not None and undecodable == "1"):
            discarded = self.delete(key)
        if self.seconds_left(lease) == float("inf"):
            self.delete(lease)
        if self._value(lease) is not None:
            return [0, discarded]
        self.put(lease, token.encode(), ms / 1000)
        return [1, discarded]

    def _fill(
        self, key: str, lease: str, tombstone: str, token: str, version: str, value: bytes, ms: int
    ) -> int:
        if self._guard(lease) != token:
            return 0
        held = self._guard(tombstone)
        older = held is not None and len(held) == len(version) and held > version
        if not older:
            self.put(key, value, ms / 1000)
        self.delete(lease)
        return 0 if older else 1

    def _invalidate(self, key: str, lease: str, tombstone: str, version: str, ms: int) -> int:
        self.delete(key)
        self.delete(lease)
        held = self._guard(tombstone)
        if held is not None and len(held) == len(version):
            version = max(version, held)
        self.put(tombstone, version.encode(), ms / 1000)
        return 1
