"""What the ledger knows only as a whole is forgotten as a whole, and nothing else is.

Broken on purpose and seen to fail: a sweep that leaves pages.
"""

from collections.abc import Iterator

import attrs
import pytest
import redis

from telegram_hybrid import Hybrid
from telegram_hybrid.cache import ledger
from telegram_hybrid.cache.ledger import Stale
from telegram_hybrid.cache.shell import MessageCache
from telegram_hybrid.cache.store import Store
from telegram_hybrid.model import Change, ChannelWrite, EventType, MessageKey
from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.testing import make_messages

ONE, OTHER = -1001, -1002


@pytest.fixture
def client(hybrid: Hybrid) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(hybrid.settings.redis_url) as client:
        yield client


def store_of(cache: MessageCache) -> Store:
    assert cache._store is not None
    return cache._store


def fill(hybrid: Hybrid) -> None:
    for channel in (ONE, OTHER):
        hybrid.messages.save_many(make_messages(600, channel_id=channel))
        hybrid.messages.get_many(channel, range(1, 11))
        hybrid.messages.latest(channel)
        hybrid.messages.after(channel, message_id=0, limit=300)
        hybrid.messages.seen(channel, [1])
    hybrid.cached("q", lambda _: 1, channels=[ONE])


def values_of(client: redis.Redis, keys: Keys, channel: int) -> set[str]:
    found = set()
    for key in client.scan_iter(match=f"{keys.prefix}:*"):
        name = keys.parse(key)
        if name and name.channel_id == channel and name.kind.value in ("msg", "recent", "page"):
            found.add(key.decode())
    return found


def write(channel: int, version: int, *ids: int) -> ChannelWrite:
    changes = [Change(MessageKey(channel, number), version, EventType.EDITED) for number in ids]
    return ChannelWrite(channel, version, tuple(changes))


def test_a_whole_channel_is_forgotten_and_others_stay(
    hybrid: Hybrid, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MESSAGES", 5)
    keys = hybrid.cache.keys
    fill(hybrid)
    others = values_of(client, keys, OTHER)
    assert len(values_of(client, keys, ONE)) >= 12
    stale = Stale()
    stale.add([write(ONE, 10_000, *range(1, 7)), write(OTHER, 10_000, 1)])
    assert stale.whole == {ONE}
    assert store_of(hybrid.cache)._repay(stale)
    assert values_of(client, keys, ONE) == set()
    gone = {keys.message(OTHER, 1), keys.page(OTHER, 0), keys.window(OTHER)}
    assert values_of(client, keys, OTHER) == others - gone
    assert client.get(keys.tombstone(ONE)) == b"10000", "no load that began before may fill"
    assert client.exists(keys.seen(ONE, 1)), "what is stored stays stored"


def test_everything_is_everything_of_ours_and_nothing_of_others(
    hybrid: Hybrid, client: redis.Redis
) -> None:
    keys = hybrid.cache.keys
    neighbour = attrs.evolve(keys, prefix=f"{keys.prefix}x")
    client.set(neighbour.message(ONE, 1), b"theirs")
    fill(hybrid)
    lease = keys.lease(keys.message(ONE, 77))
    client.set(lease, "token", ex=10)
    stale = Stale()
    stale.forget_all()
    assert store_of(hybrid.cache)._repay(stale)
    assert values_of(client, keys, ONE) | values_of(client, keys, OTHER) == set()
    assert not client.exists(lease), "who loads still may not fill"
    assert list(client.scan_iter(match=f"{keys.prefix}:api:*")) == []
    assert client.exists(keys.seen(ONE, 1))
    assert client.get(neighbour.message(ONE, 1)) == b"theirs"
