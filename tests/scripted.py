"""What the contract of the Lua scripts is asked on: a real server or the model, and short calls."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import redis
from cachelab.redis_model import RedisModel

from telegram_hybrid.model import Message
from telegram_hybrid.schema.redis import scripts, values
from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.schema.redis.scripts import Call
from telegram_hybrid.schema.redis.values import Life, Window

KEYS = Keys("contract")
CHANNEL = -1001
KEY = KEYS.message(CHANNEL, 7)
LEASE = KEYS.lease(KEY)
WINDOW = KEYS.window(CHANNEL)
HELD = KEYS.held(WINDOW)
TOMBSTONE = KEYS.tombstone(CHANNEL)
GENERATION = KEYS.generation(CHANNEL)
LIFE = Life(1793000000.5, 0.002)
#: As Lua numbers, this and the next would be one.
HUGE = 2**53
#: The highest id of a message.
TOP = 2**52 - 1


class RealRedis:
    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.get = client.get
        self.delete = client.delete
        self._listener = client.pubsub(ignore_subscribe_messages=True)
        self._listener.subscribe(KEYS.filled)
        self._listener.get_message(timeout=1)

    def run(self, call: Call) -> object:
        return self._client.eval(call.script.text, len(call.keys), *call.keys, *call.args)

    def put(self, key: str, value: bytes, seconds: float | None = None) -> None:
        self._client.set(key, value, px=None if seconds is None else round(seconds * 1000))

    def put_foreign(self, key: str) -> None:
        self._client.delete(key)
        self._client.rpush(key, "a", "b")

    def seconds_left(self, key: str) -> float | None:
        left = self._client.pttl(key)
        return None if left == -2 else float("inf") if left == -1 else left / 1000

    def wait(self, seconds: float) -> None:
        time.sleep(seconds + 0.01)

    @property
    def published(self) -> list[tuple[str, str]]:
        found = []
        self._client.publish(KEYS.filled, "end")
        while (told := self._listener.get_message(timeout=5))["data"] != b"end":
            found.append((told["channel"].decode(), told["data"].decode()))
        return found

    def close(self) -> None:
        self._listener.close()


Store = RedisModel | RealRedis


def lease(store: Store, token: str = "a", seconds: float = 10, *, undecodable: bool = False):
    return store.run(scripts.lease(KEYS, KEY, token, seconds, undecodable=undecodable))


def fill(store: Store, token: str = "a", as_of: int = 5, value: bytes = b"value"):
    return store.run(scripts.fill(KEYS, CHANNEL, KEY, token, as_of, value, 60))


def mark(store: Store, *stale: str, previous: int | None = None):
    return store.run(scripts.mark(KEYS, CHANNEL, stale, previous=previous))


def invalidate(store: Store, version: int, least: int | None = None, seen: Sequence[str] = ()):
    """Invalidate the one message, below `least`, and say of others that they are stored."""
    stale = {KEY: version if least is None else least}
    call = scripts.invalidate(KEYS, CHANNEL, version, stale, 70, seen=seen, seen_seconds=90)
    return store.run(call)


def message(message_id: int, version: int = 1, **fields: object) -> Message:
    return Message(
        channel_id=CHANNEL,
        message_id=message_id,
        sent_at=datetime(2026, 11, 1, tzinfo=UTC),
        version=version,
        **fields,
    )


def window(version: int, *ids: int, complete: bool = False, lo: int | None = None) -> Window:
    found = tuple(message(i) for i in ids)
    low = lo if lo is not None else ids[-1] if ids else 0
    return Window(found, complete, version, low, ids[0] if ids else low)


def put_window(store: Store, found: Window, key: str = WINDOW, seconds: float | None = 50) -> None:
    data = values.encode_window(found, LIFE)
    assert data is not None
    store.put(key, data, seconds)


def patch(
    store: Store,
    previous: int | None,
    version: int,
    *changes: Message | int,
    capacity: int = 10,
) -> Window | None:
    """Invalidate with a patch, an id for a deleted message; return the window there is then."""
    texts = {
        one if isinstance(one, int) else one.message_id: (
            b"" if isinstance(one, int) else one.to_json()
        )
        for one in changes
    }
    store.run(
        scripts.invalidate(
            KEYS,
            CHANNEL,
            version,
            {},
            70,
            previous=previous,
            capacity=capacity,
            patch=sorted(texts.items()),
        )
    )
    return stored_window(store)


def stored_window(store: Store, key: str = WINDOW) -> Window | None:
    data = store.get(key)
    if data is None:
        return None
    decoded = values.decode_window(data, CHANNEL)
    assert decoded is not None
    assert decoded[1] == LIFE
    return decoded[0]


def coverage(found: Window | None) -> tuple[list[int], int, int, bool, int] | None:
    if found is None:
        return None
    ids = [one.message_id for one in found.messages]
    return ids, found.lo, found.hi, found.complete, found.version
