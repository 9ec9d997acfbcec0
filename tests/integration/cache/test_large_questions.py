"""MessageCache over a real Valkey: questions for so much that they are asked in parts."""

import time
from typing import Any

import pytest
import redis
from cachelab.rows import CHANNEL, Database, message

from telegram_hybrid.cache import MessageCache, store
from telegram_hybrid.connect.redis import asking
from telegram_hybrid.model import Change, EventType, MessageKey


def test_a_question_for_many_messages_is_asked_in_parts(
    cache: MessageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail: everything was one round trip.
    parts = list[list[int]]()
    number, ask = 100, store.ask

    def asked(client: redis.Redis, commands: list[Any]) -> list[Any]:
        assert all(len(each) <= 8 for each in commands if each[0] == "MGET")
        connection = client.connection_pool.get_connection()
        client.connection_pool.release(connection)
        send, sent = connection.send_packed_command, list[int]()

        def counted(packed: list[bytes], **options: Any) -> None:
            sent.append(packed[0].count(b"\r\n$4\r\nMGET") + packed[0].count(b"\r\n$7\r\nEVALSHA"))
            send(packed, **options)

        with monkeypatch.context() as patch:
            patch.setattr(connection, "send_packed_command", counted)
            replies = ask(client, commands)
        parts.append(sent)
        return replies

    for module in (asking, store):
        monkeypatch.setattr(module, "MOST", 7)
    monkeypatch.setattr(store, "ask", asked)
    database = Database(*map(message, range(number)))
    for _ in range(2):
        assert cache.get_many(CHANNEL, range(number), database.messages) == database.rows
    assert len(database.loads) == 1
    assert (cache.stats().fills, cache.stats().hits) == (number, number)
    assert max(map(max, parts)) == 7
    assert max(map(sum, parts)) == number, "of leases, and of fills"


@pytest.mark.long
def test_a_question_for_very_many_messages_is_cached_like_any_other(
    cache: MessageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail while all of it was one round trip: storing 20,000 messages took a Redis that is
    # well longer than its timeout, and after the second such question the breaker was open. And
    # while an answer counted as slow however much was asked.
    number, seconds = 20_000, list[float]()
    database = Database(*(message(i, text="x" * 300) for i in range(number)))
    assert cache._store is not None
    answered = cache._store.gate.answered
    monkeypatch.setattr(
        cache._store.gate, "answered", lambda took: answered(took) or seconds.append(took)
    )
    monkeypatch.setattr(store, "SLOW", 0.0)
    assert len(cache.get_many(CHANNEL, range(number), database.messages)) == number
    began = time.monotonic()
    assert len(cache.get_many(CHANNEL, range(number), database.messages)) == number
    spent = time.monotonic() - began
    assert len(database.loads) == 1
    assert (cache.stats().fills, cache.stats().errors) == (number, 0)
    assert seconds[-1] < spent / 10, "counted is what a part of it took"


def test_what_very_many_commits_changed_is_told_in_parts_that_are_not_slow(
    cache: MessageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail while the whole counted: a relay with events of 2,000 channels at a time opened
    # its breaker, and published without invalidating.
    seconds = list[float]()
    assert cache._store is not None
    monkeypatch.setattr(cache._store.gate, "answered", seconds.append)
    monkeypatch.setattr(store, "SLOW", 0.0)
    changes = [Change(MessageKey(-number, 1), 5, EventType.EDITED) for number in range(1, 2001)]
    began = time.monotonic()
    assert cache.repair(changes)
    assert seconds[-1] < (time.monotonic() - began) / 5
