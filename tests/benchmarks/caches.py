"""The other caches, each as its manual says and with the fastest serializer that is safe.

That is msgspec's MessagePack of the same model, which decodes faster than our JSON. They read by
their plainest call, without a loader, which is less than `messages.get` does for its caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from benchmarks.benchmark import Operation
from benchmarks.stand import Stand
from telegram_hybrid.model import Message
from telegram_hybrid.model.message import compact

_DECODE = msgspec.msgpack.Decoder(Message).decode
_ENCODER = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """Encode for the other caches."""
    return _ENCODER.encode(compact(message))


def decode(data: bytes) -> Message:
    """Decode for the other caches."""
    return _DECODE(data)


def region(stand: Stand, prefix: str, **arguments: Any) -> Any:
    """A region of dogpile.cache on Redis."""
    from dogpile.cache import make_region

    made = make_region(
        serializer=encode, deserializer=decode, key_mangler=lambda key: f"{prefix}:{key}"
    )
    told = {"url": stand.redis_url, "redis_expiration_time": 3600, **arguments}
    return made.configure("dogpile.cache.redis", arguments=told)


@contextmanager
def dogpile(stand: Stand, cached: Mapping[str, Message], *, many: bool) -> Iterator[Operation]:
    """`region.get` or `region.get_multi`."""
    made = region(stand, "dogpile")
    made.set_multi(dict(cached))
    yield Operation(call=made.get_multi if many else made.get)
    made.delete_multi(list(cached))


@contextmanager
def cashews(stand: Stand, cached: Mapping[str, Message], *, many: bool) -> Iterator[Operation]:
    """`cache.get` or `cache.get_many`."""
    from cashews import Cache
    from cashews.serialize import register_type

    async def to_bytes(value: Message, *_: Any) -> bytes:
        return encode(value)

    async def from_bytes(value: bytes, *_: Any) -> Message:
        return decode(value)

    register_type(Message, to_bytes, from_bytes)
    cache = Cache()
    cache.setup(stand.redis_url, pickle_type="null", check_repr=False)
    names = [f"cashews:{key}" for key in cached]

    async def fill() -> None:
        await cache.set_many(dict(zip(names, cached.values(), strict=True)), expire=3600)

    async def get(key: str) -> Any:
        return await cache.get(f"cashews:{key}")

    async def get_many(keys: list[str]) -> Any:
        return list(await cache.get_many(*[f"cashews:{key}" for key in keys]))

    with stand.loop() as runner:
        runner.run(fill())
        yield Operation(call=get_many if many else get, runner=runner)
        runner.run(cache.delete_many(*names))
        runner.run(cache.close())


@contextmanager
def aiocache(stand: Stand, cached: Mapping[str, Message], *, many: bool) -> Iterator[Operation]:
    """`cache.get` or `cache.multi_get`."""
    from aiocache import RedisCache
    from aiocache.serializers import BaseSerializer

    class Serializer(BaseSerializer):
        DEFAULT_ENCODING = None

        def dumps(self, value: Message) -> bytes:
            return encode(value)

        def loads(self, value: bytes | None) -> Message | None:
            return None if value is None else decode(value)

    with stand.loop() as runner:

        async def opened() -> Any:
            cache = RedisCache(serializer=Serializer(), namespace="aiocache", **stand.redis_parts)
            await cache.multi_set(list(cached.items()), ttl=3600)
            return cache

        cache = runner.run(opened())
        yield Operation(call=cache.multi_get if many else cache.get, runner=runner)
        for key in cached:
            runner.run(cache.delete(key))
        runner.run(cache.close())


_CLIENT = ("redis", "hiredis", "msgspec")
#: All of them: name, opener, and what they need.
ALL = (
    ("dogpile.cache", dogpile, ("dogpile.cache", *_CLIENT)),
    ("cashews", cashews, ("cashews", *_CLIENT, "uvloop")),
    ("aiocache", aiocache, ("aiocache", *_CLIENT, "uvloop")),
)
