"""The auditor finds what is wrong, all of it, and nothing else.

Broken on purpose and seen to fail: an audit that looks only once takes every writer for an error;
one that compares messages by == misses a status, because those are equal if their content is.
"""

import logging
import threading
import time
from collections.abc import Iterator

import attrs
import pytest
import redis
from stand import until

from telegram_hybrid import Hybrid
from telegram_hybrid.cache import Audit, audit
from telegram_hybrid.hybrid import connect
from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.testing import make_message, make_messages

CHANNEL = -1001


@pytest.fixture
def client(hybrid: Hybrid) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(hybrid.settings.redis_url) as client:
        yield client


@pytest.fixture
def keys(hybrid: Hybrid) -> Keys:
    return hybrid.cache.keys


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit.Auditor.__init__, "__defaults__", (0.1,))


def fill(hybrid: Hybrid) -> None:
    """Cache 20 messages, one that is not there, a window and the pages 0 and 1."""
    hybrid.messages.save_many(make_messages(600, channel_id=CHANNEL))
    hybrid.messages.delete(CHANNEL, 300)
    hybrid.messages.get_many(CHANNEL, [*range(1, 21), 9999])
    hybrid.messages.latest(CHANNEL)
    hybrid.messages.after(CHANNEL, message_id=0, limit=400)  # of pages 0 to 4, as 300 is deleted


def alter(client: redis.Redis, key: str, old: bytes, new: bytes) -> None:
    value = client.get(key)
    assert old in value
    client.set(key, value.replace(old, new, 1))


@pytest.mark.usefixtures("quick")
def test_what_is_right_is_consistent_and_every_kind_is_checked(hybrid: Hybrid) -> None:
    fill(hybrid)
    calls: list[tuple[int, int]] = []
    found = hybrid.cache.audit(told=lambda done, of: calls.append((done, of)))
    assert found == Audit(checked=27, inconsistent=0)
    assert found.per_million == 0.0
    assert calls[0] == (0, 27)
    assert calls[-1] == (27, 27)


@pytest.mark.usefixtures("quick")
def test_everything_that_is_wrong_is_found_and_named(
    hybrid: Hybrid, client: redis.Redis, keys: Keys
) -> None:
    fill(hybrid)
    hybrid.messages.save(make_message(channel_id=CHANNEL, message_id=601))
    hybrid.messages.latest(CHANNEL)
    wrong = [keys.message(CHANNEL, number) for number in (1, 2, 9999)]
    wrong += [keys.window(CHANNEL), keys.page(CHANNEL, 0), keys.page(CHANNEL, 2)]
    old = client.get(keys.message(CHANNEL, 1))
    absent = client.get(keys.message(CHANNEL, 9999))
    with connect(attrs.evolve(hybrid.settings, redis_url=None)) as unheard:
        unheard.messages.mark(CHANNEL, 1, "queued")  # type: ignore[arg-type]
        unheard.messages.save(make_message(channel_id=CHANNEL, message_id=9999))
        unheard.messages.delete(CHANNEL, 299)
    assert client.get(keys.message(CHANNEL, 1)) == old
    assert client.get(keys.message(CHANNEL, 9999)) == absent
    alter(client, keys.message(CHANNEL, 2), b"BUY", b"SELL")
    found = hybrid.cache.audit()
    print(f"\n{found}")
    named = {each.partition(": ")[0] for each in found.examples}
    assert named == set(wrong)
    assert found.inconsistent == len(wrong)
    assert found.per_million == pytest.approx(len(wrong) / found.checked * 1e6)
    assert hybrid.cache.audit(sample=3).checked == 3


@pytest.mark.usefixtures("quick")
def test_garbage_is_not_compared(hybrid: Hybrid, client: redis.Redis, keys: Keys) -> None:
    client.set(keys.message(CHANNEL, 1), b"garbage")
    client.rpush(keys.window(CHANNEL), "x")
    client.set(f"{keys.prefix}:api:q:0", b"{}")
    assert hybrid.cache.audit() == Audit()


def test_writers_cause_no_false_alarm(hybrid: Hybrid, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each audit reads Redis first, then a writer commits, then it reads the database.
    monkeypatch.setattr(audit.Auditor.__init__, "__defaults__", (0.1,))
    fill(hybrid)
    truth = hybrid.cache.truth
    assert truth is not None
    seconds = iter(range(1, 60))

    class Overtaken:
        """The database, just after somebody has written what is asked for."""

        def messages(self, channel_id: int, ids: list[int]) -> object:
            for number in ids:
                made = make_message(channel_id=channel_id, message_id=number, text="edited")
                edited_at = made.sent_at.replace(second=next(seconds))
                hybrid.messages.save(attrs.evolve(made, edited_at=edited_at))
                hybrid.messages.get(channel_id, number)
            return truth.messages(channel_id, ids)

        def newest(self, channel_id: int, limit: int) -> object:
            self.messages(channel_id, [600])
            return truth.newest(channel_id, limit)

        def page(self, channel_id: int, number: int) -> object:
            self.messages(channel_id, [number * 256 + 40])
            return truth.page(channel_id, number)

    hybrid.cache.truth = Overtaken()  # type: ignore[assignment]
    found = hybrid.cache.audit()
    assert found.checked > 20
    assert found.inconsistent == 0, found


@pytest.mark.usefixtures("quick")
def test_in_the_background_it_is_off_unless_asked_for_and_says_what_it_finds(
    hybrid: Hybrid, client: redis.Redis, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    fill(hybrid)
    alter(client, keys.message(CHANNEL, 2), b"BUY", b"SELL")
    with connect(hybrid.settings) as silent:
        silent.messages.get(CHANNEL, 1)
        assert not any("cache audit" in each.name for each in threading.enumerate())
    with connect(attrs.evolve(hybrid.settings, cache_audit_every=0.05)):
        until(lambda: "cache audit: 1 of 27" in caplog.text)
    assert keys.message(CHANNEL, 2) in caplog.text
    assert caplog.records[-1].levelno == logging.WARNING
    began = time.monotonic()
    while any("cache audit" in each.name for each in threading.enumerate()):
        assert time.monotonic() - began < 5, "it ends with its hybrid"
