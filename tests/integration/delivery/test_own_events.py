"""Events of one's own: in the writer's transaction, in the channel's order, in every version."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text
from stand import Stand, until

import telegram_hybrid as th
from telegram_hybrid.connect.broker import close_quietly
from telegram_hybrid.delivery.backoff import Backoff
from telegram_hybrid.errors import InvalidInput, NestedWrite
from telegram_hybrid.model import Event
from telegram_hybrid.model.upcasting import UPCASTERS
from telegram_hybrid.testing import make_message, make_messages

pytestmark = pytest.mark.integration

CHANNEL = -1001
TOPIC = "test.signals.opened"
BOTH = ["telegram.channel.#", "test.signals.*"]
QUICK = Backoff(first=0.05, most=0.2)


@pytest.fixture
def hybrid(at: Stand) -> Iterator[th.Hybrid]:
    with th.connect(at.settings) as connected:
        yield connected


def signal(n: int, **options: Any) -> Event:
    return Event(TOPIC, {"n": n}, **({"channel_id": CHANNEL} | options))


def relayed(at: Stand) -> None:
    relay = at.relay(owner="own")
    while relay.step():
        pass
    relay.close()


def test_they_arrive_in_their_transactions_place_among_the_channels_events(at, hybrid):
    at.consumer(lambda event, tx: None, bind=BOTH).declare()
    hybrid.messages.save(make_message(channel_id=CHANNEL, message_id=1))
    with hybrid.transaction() as tx:
        first = tx.publish(signal(1))
        tx.messages.save(make_message(channel_id=CHANNEL, message_id=2))
        second = tx.publish(signal(2, traceparent=f"00-{'a' * 32}-{'b' * 16}-01"))
        assert len(tx.changes) == 1
    with pytest.raises(KeyError), hybrid.transaction() as tx:
        tx.publish(signal(3))
        raise KeyError
    relayed(at)
    taken = at.taken()
    told = [each.payload if each.type == TOPIC else each.message.message_id for each in taken]
    assert told == [1, {"n": 1}, 2, {"n": 2}]
    assert [each.sequence for each in taken] == sorted(each.sequence for each in taken)
    assert (taken[1], taken[3]) == (first, second)
    assert taken[3].traceparent == second.traceparent
    assert taken[3].channel_id == CHANNEL


def test_the_number_is_drawn_after_the_channels_lock(at, hybrid):
    # Broken on purpose: with `FROM (SELECT) AS one` instead of `FROM locked` in _PUBLISH, the
    # second transaction drew its number at once, and committed it first.
    drawn = "SELECT last_value FROM {s}.outbox_id_seq"
    done: list[Event] = []

    def second() -> None:
        with hybrid.transaction() as tx:
            done.append(tx.publish(signal(2)))

    with hybrid.transaction() as tx:
        first = tx.publish(signal(1))
        before = at.value(drawn)
        thread = threading.Thread(target=second)
        thread.start()
        until(
            lambda: at.value(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            )
        )
        assert at.value(drawn) == before
        assert not done
    thread.join()
    assert done[0].sequence > first.sequence


def test_the_cache_forgets_nothing_for_them(at, hybrid):
    # Broken on purpose: a Change of message 0 for them in `changes_of`, with the "version" that
    # their payload happens to have, emptied the window and refused every fill afterwards.
    hybrid.messages.save_many(make_messages(3, channel_id=CHANNEL))
    relayed_with_cache(at, hybrid)
    hybrid.messages.get(CHANNEL, 1)
    hybrid.messages.latest(CHANNEL, limit=2)
    keys = sorted(hybrid._redis.scan_iter(match=f"{at.settings.redis_prefix}:*"))
    assert len(keys) > 1
    before = hybrid._redis.mget(keys)
    with hybrid.transaction() as tx:
        tx.publish(Event(TOPIC, {"version": 2**40}, channel_id=CHANNEL))
    relayed_with_cache(at, hybrid)
    assert at.outbox() == []
    assert hybrid._redis.mget(keys) == before
    misses = hybrid.cache.stats().misses
    hybrid.messages.get(CHANNEL, 1)
    hybrid.messages.latest(CHANNEL, limit=2)
    assert hybrid.cache.stats().misses == misses


def relayed_with_cache(at: Stand, hybrid: th.Hybrid) -> None:
    """With the invalidation that the relay repeats."""
    at.consumer(lambda event, tx: None, bind=BOTH).declare()
    relay = hybrid.relay()
    while relay.step():
        pass
    relay.close()


def test_a_handlers_own_events_commit_with_its_inbox_row_or_not_at_all(at, hybrid):
    consumer = hybrid.consume(failing_once(), queue=at.queue, max_attempts=3, backoff=QUICK)
    consumer.declare()
    at.consumer(lambda event, tx: None, queue=f"{at.queue}.own", bind=TOPIC).declare()
    hybrid.messages.save(make_message(channel_id=CHANNEL, message_id=1))
    relayed(at)
    consumer.start()
    until(lambda: consumer.counters.consumed == 1)
    assert consumer.stop()
    assert consumer.counters.retried == 1
    relayed(at)
    assert [each.payload for each in at.taken(f"{at.queue}.own")] == [{"n": 1}]


def failing_once() -> Any:
    calls = []

    def handler(event: Event, tx: Any) -> None:
        tx.publish(signal(event.message.message_id))
        calls.append(event)
        if len(calls) == 1:
            raise LookupError

    return handler


def test_events_of_a_channel_wait_for_each_other_whatever_their_topics(at, hybrid):
    # Broken on purpose: with the routing key for a lane, "2" was handled before "1".
    handled: list[Any] = []

    def handler(event: Event, tx: Any) -> None:
        handled.append(event.payload["n"])
        if handled.count(1) == 1:
            raise LookupError

    consumer = at.consumer(handler, bind="test.#", backoff=QUICK)
    consumer.declare()
    with hybrid.transaction() as tx:
        for n, topic in enumerate(("test.a", "test.b", "test.a"), 1):
            tx.publish(Event(topic, {"n": n}, channel_id=CHANNEL))
    relayed(at)
    consumer.start()
    until(lambda: consumer.counters.consumed == 3)
    assert consumer.stop()
    assert handled == [1, 1, 2, 3]


def test_what_waits_of_an_older_version_is_brought_to_the_current_one(at, hybrid, monkeypatch):
    got: list[Event] = []
    consumer = at.consumer(lambda event, tx: got.append(event), bind=BOTH)
    consumer.declare()
    with hybrid.transaction() as tx:
        tx.publish(signal(1))
    relayed(at)
    with hybrid.transaction() as tx:
        tx.publish(signal(2))
    steps = {TOPIC: {1: lambda payload: {"number": payload["n"]}}}
    monkeypatch.setattr(UPCASTERS, "_steps", steps)
    with hybrid.transaction() as tx:
        tx.publish(Event(TOPIC, {"number": 3}, channel_id=CHANNEL))
    relayed(at)  # one that waited in the outbox, and one of the new version
    consumer.start()
    until(lambda: consumer.counters.consumed == 3)
    assert consumer.stop()
    assert [each.payload for each in got] == [{"number": 1}, {"number": 2}, {"number": 3}]
    assert {each.version for each in got} == {2}


@pytest.mark.parametrize(
    ("published", "known", "reason"),
    [
        (2, {}, f"unreadable: version: {TOPIC} 2: this process reads versions up to 1; upgrade it"),
        (1, {1: lambda payload: payload["none"]}, "raised KeyError: KeyError: 'none'"),
    ],
)
def test_what_cannot_be_brought_to_the_current_version_is_a_dead_letter_that_can_be_replayed(
    at, hybrid, monkeypatch, published, known, reason
):
    got: list[Any] = []
    consumer = at.consumer(lambda event, tx: got.append(event.payload), bind=BOTH)
    consumer.declare()
    with hybrid.transaction() as tx:
        tx.publish(signal(1, version=published))
        tx.messages.save(make_message(channel_id=CHANNEL, message_id=1))
    relayed(at)
    monkeypatch.setattr(UPCASTERS, "_steps", {TOPIC: known})
    consumer.start()
    until(lambda: consumer.counters.dead == 1 and consumer.counters.consumed == 1)
    assert consumer.stop()
    (letter,) = hybrid.dead_letters.list(type=TOPIC, channel_id=CHANNEL)
    assert (letter.version, letter.message_id, letter.attempts) == (published, None, 0)
    assert reason in letter.reason
    mended = {1: lambda payload: {"mended": payload["n"]}}
    monkeypatch.setattr(UPCASTERS, "_steps", {TOPIC: mended})
    assert hybrid.dead_letters.replay(letter.id)
    relayed(at)
    again = at.consumer(lambda event, tx: got.append(event.payload), bind=BOTH)
    again.start()
    until(lambda: again.counters.consumed == 1)
    assert again.stop()
    assert got[1] == ({"n": 1} if published == 2 else {"mended": 1})


def test_one_that_a_handler_gives_up_is_replayed_as_it_was(at, hybrid):
    consumer = at.consumer(lambda event, tx: 1 / 0, bind=BOTH, max_attempts=1)
    consumer.declare()
    with hybrid.transaction() as tx:
        published = tx.publish(signal(1))
    relayed(at)
    consumer.start()
    until(lambda: consumer.counters.dead == 1)
    assert consumer.stop()
    assert hybrid.dead_letters.replay_all(type=TOPIC).events == 1
    relayed(at)
    (again,) = at.taken()
    assert (again.event_id, again.payload) == (published.event_id, published.payload)
    assert again.sequence > published.sequence


def test_replaying_messages_is_not_misled_by_them(at, hybrid):
    """Message 0 is stored and missed, and the queue has dealt with an event of the channel."""
    # Broken on purpose: with 0 for "no message" in the inbox, it was taken for dealt with.
    consumer = at.consumer(lambda event, tx: None, bind=TOPIC)
    consumer.declare()
    hybrid.messages.save(make_message(channel_id=CHANNEL, message_id=0))
    at.execute("DELETE FROM {s}.outbox")
    with hybrid.transaction() as tx:
        tx.publish(signal(1))
    relayed(at)
    consumer.start()
    until(lambda: consumer.counters.consumed == 1)
    assert consumer.stop()
    with hybrid.transaction() as tx:
        tx.publish(signal(2))
    assert hybrid.replay(queue=at.queue) == 1


def test_publish_takes_events_of_ones_own_only_and_not_beside_another_writer(at, hybrid):
    with hybrid.transaction() as tx:
        with pytest.raises(InvalidInput, match="event: expected an Event, got dict"):
            tx.publish({"type": TOPIC})
        with pytest.raises(InvalidInput, match="saving"):
            tx.publish(Event(th.EventType.RECEIVED, make_message()))
        tx.publish(signal(1))
        with pytest.raises(NestedWrite), hybrid.transaction() as other:
            other.publish(signal(2))
        tx.connection.execute(text("SELECT 1"))
    assert len(at.outbox()) == 1


def test_the_envelope_is_a_cloud_event_that_others_can_read(rabbit_at):
    at = rabbit_at
    at.consumer(lambda event, tx: None, bind=BOTH).declare()
    with th.connect(at.settings) as hybrid, hybrid.transaction() as tx:
        event = tx.publish(signal(1, version=3, traceparent=f"00-{'a' * 32}-{'b' * 16}-01"))
    relayed(at)
    connection = at.broker()
    message = connection.channel().basic_get(at.queue)
    close_quietly(connection)
    assert message.delivery_info["routing_key"] == TOPIC
    assert message.body == '{"n":1}'
    assert message.properties["type"] == TOPIC
    assert message.properties["message_id"] == str(event.event_id)
    assert event.event_id.version == 7
    message.headers.pop("x-delivery-count")  # the queue's own
    assert message.headers == {
        "cloudEvents_specversion": "1.0",
        "cloudEvents_id": str(event.event_id),
        "cloudEvents_type": TOPIC,
        "cloudEvents_source": f"/telegram/channels/{CHANNEL}",
        "cloudEvents_time": event.occurred_at.isoformat(),
        "cloudEvents_sequence": str(event.sequence),
        "cloudEvents_dataschema": f"telegram-hybrid:{TOPIC}:3",
        "cloudEvents_traceparent": event.traceparent,
        "traceparent": event.traceparent,
    }


def test_a_trace_goes_from_the_writer_through_the_handler_to_its_own_events(at, hybrid):
    # Broken on purpose: without `continued` in the consumer, the last one had no trace.
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    at.consumer(lambda event, tx: None, queue=f"{at.queue}.own", bind=TOPIC).declare()
    seen: list[str | None] = []

    def handler(event: Event, tx: Any) -> None:
        seen.append(event.traceparent)
        tx.publish(signal(event.message.message_id))

    consumer = hybrid.consume(handler, queue=at.queue)
    consumer.declare()
    with pytest.raises(InvalidInput, match="traceparent"), hybrid.transaction(traceparent="x"):
        pass
    with hybrid.transaction(traceparent=parent) as tx:
        tx.messages.save(make_message(channel_id=CHANNEL, message_id=1))
    hybrid.messages.save(make_message(channel_id=CHANNEL, message_id=2))
    relayed(at)
    consumer.start()
    until(lambda: consumer.counters.consumed == 2)
    assert consumer.stop()
    relayed(at)
    assert seen == [parent, None]
    assert [each.traceparent for each in at.taken(f"{at.queue}.own")] == [parent, None]
