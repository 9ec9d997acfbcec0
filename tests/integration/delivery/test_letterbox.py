"""Dead letters in an operator's hands: looked at, replayed once, in order, discarded, drained."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from stand import Handler, Stand, drained, publish, until

from telegram_hybrid.connect import postgres
from telegram_hybrid.connect.broker import close_quietly
from telegram_hybrid.delivery.backoff import Backoff
from telegram_hybrid.delivery.letterbox import DeadLetters
from telegram_hybrid.errors import InvalidInput, NotFound
from telegram_hybrid.model.upcasting import UPCASTERS
from telegram_hybrid.outbox.dead_letters import Outcome
from telegram_hybrid.schema.broker import seal
from telegram_hybrid.testing import make_message

pytestmark = pytest.mark.integration

QUICK = Backoff(first=0.01, most=0.02)


def letterbox(at: Stand) -> DeadLetters:
    return DeadLetters(lambda: postgres.transaction(at.engine), at.schema, at.broker, at.topology)


def relayed(at: Stand) -> None:
    relay = at.relay(owner="publish")
    while relay.step():
        pass
    relay.close()


def given_up(at: Stand, number: int, channels: Any = (-1001,), **options: Any) -> Handler:
    """A handler that has failed on `number` events for good, and from now on fails no more."""
    broken = [True]
    handler = Handler(at, lambda event: broken[0])
    publish(at, number, channels)
    handled(at, handler, lambda consumer: consumer.counters.dead == number, **options)
    broken.clear()
    broken.append(False)
    return handler


def handled(at: Stand, handler: Any, until_: Callable[[Any], bool], **options: Any) -> None:
    consumer = at.consumer(handler, max_attempts=1, backoff=QUICK, **options)
    consumer.start()
    until(lambda: until_(consumer))
    assert consumer.stop()


def test_what_was_given_up_can_be_listed_counted_and_looked_at(at: Stand):
    given_up(at, 5, [-1001, -1002])
    box = letterbox(at)
    newest = box.list(limit=2)
    assert len(newest) == 2
    assert len(box.list(before=newest[-1].id)) == 3
    assert [each.channel_id for each in box.list(channel_id=-1002)] == [-1002, -1002]
    assert box.count() == 5
    assert box.count(channel_id=-1001, queue=at.queue, reason="NO SUCH") == 3
    last = newest[0]
    assert box.count(since=last.failed_at) == 1
    assert box.count(until=last.failed_at) == 4
    assert box.count(queue="") == box.count(type="message.edited") == box.count(reason="%") == 0
    letter = box.get(last.id)
    assert letter == last
    assert (letter.queue, letter.attempts, letter.outcome) == (at.queue, 1, None)
    assert letter.reason.startswith("LookupError: no such thing as")
    assert box.get(10**9) is None


@pytest.mark.parametrize(
    ("choice", "field"),
    [
        ({"channel": -1}, "channel"),
        ({"channel_id": 0}, "channel_id"),
        ({"queue": "a\0"}, "queue"),
        ({"since": "yesterday"}, "since"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_by_name(redis_at: Stand, choice: Any, field: str):
    # A misspelt filter that is ignored would replay or discard everything.
    for call in (letterbox(redis_at).list, letterbox(redis_at).replay_all):
        with pytest.raises(InvalidInput) as caught:
            call(**choice)
        assert caught.value.field == field


def test_one_letter_is_replayed_once_and_stays_as_history(at: Stand):
    handler = given_up(at, 2)
    box = letterbox(at)
    second, first = box.list()
    assert box.replay(first.id)
    assert not box.replay(first.id)
    relayed(at)
    handled(at, handler, lambda consumer: consumer.counters.consumed == 1)
    assert len(handler.effects()) == 1
    assert [each.id for each in box.list()] == [second.id]
    (history,) = box.list(settled=True)
    assert (history.id, history.outcome, history.event_id) == (
        first.id,
        Outcome.REPLAYED,
        first.event_id,
    )
    with pytest.raises(NotFound):
        box.replay(10**9)


def test_a_replay_reaches_the_queue_that_gave_up_and_no_other_twice(at: Stand):
    # Broken on purpose: with new event ids in `revive` the other queue handled them again.
    other = at.consumer(lambda event, tx: None, queue=f"{at.queue}.other")
    other.declare()
    handler = given_up(at, 3)
    other.start()
    until(lambda: other.counters.consumed == 3)
    assert letterbox(at).replay_all().events == 3
    relayed(at)
    handled(at, handler, lambda consumer: consumer.counters.consumed == 3)
    until(lambda: other.counters.duplicates == 3)
    assert other.stop()
    assert other.counters.consumed == 3
    assert len(handler.effects()) == 3


def test_replays_that_run_at_the_same_time_put_each_event_back_once_and_in_order(at: Stand):
    """300 letters, two batches. Broken on purpose: without `AND settled_at IS NULL` in _HOLD the
    events came up to four times; by id instead of sequence, out of order."""
    handler = given_up(at, 300, [-1001, -1002, -1003], prefetch=500)
    sequences = {row.event_id: row.sequence for row in letterbox(at).list(limit=1000)}
    at.execute(  # the later ones were given up before the earlier ones
        "WITH new AS (SELECT id, row_number() OVER (ORDER BY sequence DESC) AS n"
        " FROM {s}.dead_letters) UPDATE {s}.dead_letters SET id = -1000000 + n FROM new"
        " WHERE new.id = dead_letters.id"
    )
    at.execute("UPDATE {s}.dead_letters SET id = id + 2000000")
    done: list[int] = []
    seen: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: done.append(letterbox(at).replay_all(progress=seen.append).events)
        )
        for _ in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(done) == 300
    assert max(seen) == 300
    rows = at.rows("SELECT event_id, channel_id FROM {s}.outbox ORDER BY id")
    assert len(rows) == len({row.event_id for row in rows}) == 300
    for channel in (-1001, -1002, -1003):
        order = [sequences[row.event_id] for row in rows if row.channel_id == channel]
        assert order == sorted(order)
    relayed(at)
    handled(at, handler, lambda consumer: consumer.counters.consumed == 300)
    assert letterbox(at).count() == 0


def test_a_replay_by_choice_takes_nothing_else(at: Stand):
    given_up(at, 6, [-1001, -1002])
    assert letterbox(at).replay_all(channel_id=-1002).events == 3
    assert {row.channel_id for row in at.rows("SELECT channel_id FROM {s}.outbox")} == {-1002}
    assert letterbox(at).count() == 3


def test_an_event_that_fails_again_becomes_another_letter(at: Stand):
    given_up(at, 1)
    assert letterbox(at).replay_all().events == 1
    relayed(at)
    handler = Handler.__new__(Handler)  # the table is there already
    handler.at, handler.fail, handler.calls = at, lambda event: True, []
    handled(at, handler, lambda consumer: consumer.counters.dead == 1)
    assert letterbox(at).count() == 1
    assert len(letterbox(at).list(settled=True)) == 1


def test_a_discard_keeps_the_reason_and_a_later_replay_finds_nothing(at: Stand):
    given_up(at, 3)
    box = letterbox(at)
    with pytest.raises(InvalidInput):
        box.discard(box.list()[0].id, reason=" ")
    assert box.discard(box.list()[0].id, reason="a test post")
    assert box.discard_all(why="tests", channel_id=-1001) == 2
    assert box.replay_all().events == 0
    assert sorted(str(each.note) for each in box.list(settled=True)) == [
        "a test post",
        "tests",
        "tests",
    ]
    assert at.outbox() == []


def test_an_event_that_was_never_published_is_published_by_its_replay(at: Stand):
    """A relay gave it up (queue NULL)."""
    at.feed(1)
    at.execute(
        "WITH gone AS (DELETE FROM {s}.outbox RETURNING *) INSERT INTO {s}.dead_letters"
        " (event_id, type, channel_id, message_id, payload, sequence, attempts, reason)"
        " SELECT event_id, type, channel_id, message_id, payload, id, 40, 'nack' FROM gone"
    )
    handler = Handler(at)
    at.consumer(handler).declare()
    assert letterbox(at).replay_all(queue="").events == 1
    relayed(at)
    handled(at, handler, lambda consumer: consumer.counters.consumed == 1)


def test_a_message_of_a_newer_library_is_kept_and_handled_after_the_upgrade(at: Stand, monkeypatch):
    # Broken on purpose: refusing unknown versions in `open_envelope` made it "unreadable", which
    # no choice by type or sequence found.
    handler = Handler(at)
    at.consumer(handler).declare()
    at.commit([make_message(message_id=5, channel_id=-1001)])
    (sequence,) = at.outbox()
    at.execute("UPDATE {s}.outbox SET schema_version = 99")
    relayed(at)
    handled(at, handler, lambda consumer: consumer.counters.dead == 1)
    box = letterbox(at)
    (letter,) = box.list(type="message.received")
    assert (letter.version, letter.sequence, letter.message_id) == (99, sequence, 5)
    assert letter.reason.endswith("message 99: this process reads versions up to 1; upgrade it")
    monkeypatch.setattr(UPCASTERS, "_steps", {"message": {98: dict}})
    assert box.replay(letter.id)
    relayed(at)
    handled(at, handler, lambda consumer: consumer.counters.consumed == 1)
    assert at.value("SELECT count(*) FROM {s}.effects WHERE channel_id = -1001") == 1


def test_what_the_broker_gave_up_by_itself_is_drained_into_rows_once(rabbit_at: Stand):
    """The delivery limit (50) is for consumers that die of an event: here it is rejected unread,
    and handed out until the broker has had enough."""
    at = rabbit_at
    handler = Handler(at)
    (sequence,) = publish(at, 1)
    connection = at.broker()
    channel = connection.channel()
    tries = 0
    while (message := channel.basic_get(at.queue)) is not None:
        channel.basic_reject(message.delivery_tag, requeue=True)
        tries += 1
        assert tries < 200
    close_quietly(connection)
    box = letterbox(at)
    drained = []
    until(lambda: drained.append(box.drain()) or drained[-1].messages == 1)
    assert drained[-1].letters == 1
    (letter,) = box.list()
    assert (letter.queue, letter.sequence) == (at.queue, sequence)
    assert letter.reason.startswith("delivery_limit: ")
    assert box.replay_all().events == 1
    relayed(at)
    handled(at, handler, lambda consumer: consumer.counters.consumed == 1)


def test_draining_what_a_consumer_rejected_makes_no_second_letter(rabbit_at: Stand):
    # Broken on purpose: without the conditions of _BURY_ONCE each had two letters.
    at, box = rabbit_at, letterbox(rabbit_at)
    handler = given_up(at, 3)
    # One replayed before the drain: the queue has forgotten it, the history has not.
    assert box.replay(box.list()[0].id)
    drained: list[int] = []
    until(lambda: drained.append(box.drain().messages) or sum(drained) == 3)
    assert box.count() == 2
    relayed(at)
    handled(at, handler, lambda consumer: consumer.counters.consumed == 1)


def test_a_foreign_message_in_the_dead_letter_queue_is_kept_as_it_is(rabbit_at: Stand):
    at, box = rabbit_at, letterbox(rabbit_at)
    at.consumer(lambda event, tx: None).declare()
    envelope = seal(
        event_id=uuid4(),
        type="message.received",
        sequence=1,
        occurred_at=make_message().sent_at,
        channel_id=-1001,
        message_id=1,
        payload="junk",
        traceparent=None,
    )
    connection = at.broker()
    channel = connection.channel()
    message = channel.prepare_message(
        envelope.body, content_type="text/plain", headers=envelope.headers, properties={}
    )
    channel.basic_publish(
        message, exchange=at.topology.dead_letter_exchange, routing_key="telegram.channel.-1001"
    )
    close_quietly(connection)
    until(lambda: box.drain().letters == 1)
    (letter,) = box.list()
    assert (letter.type, letter.channel_id) == ("unreadable", -1001)
    assert letter.queue == at.topology.dead_letter_queue
    assert box.replay_all().unreadable == (letter.id,)
    with pytest.raises(InvalidInput, match="payload: not JSON"):
        box.replay(letter.id)


@pytest.mark.parametrize(
    ("kind", "payload", "replayed"),
    [
        ("message.pinned", "{}", 1),  # as a later version of the library may have them
        ("message.received", "[]", 1),
        ("message.received", '{"version": "x"}', 1),
        ("message." + 300 * "x", "{}", 0),  # which no relay could publish
    ],
)
def test_no_relay_dies_of_a_letter_that_is_replayed(
    rabbit_at: Stand, kind: str, payload: str, replayed: int
):
    """Nor do the others, each of which would have taken its shard over, and died of it.

    Broken on purpose: with `EventType(row.type)`, and the payload's version as it was, `step`
    raised ValueError and ValidationError. The last one was put back, of which py-amqp makes a
    struct.error.
    """
    at, box = rabbit_at, letterbox(rabbit_at)
    consumer = at.consumer(lambda event, tx: None)
    consumer.declare()
    envelope = seal(
        event_id=uuid4(),
        type=kind,
        sequence=1,
        occurred_at=make_message().sent_at,
        channel_id=-1001,
        message_id=1,
        payload=payload,
        traceparent=None,
    )
    connection = at.broker()
    channel = connection.channel()
    message = channel.prepare_message(envelope.body, headers=envelope.headers, properties={})
    channel.basic_publish(
        message, exchange=at.topology.exchange, routing_key="telegram.channel.-1001"
    )
    close_quietly(connection)
    consumer.start()
    until(lambda: consumer.counters.dead == 1)
    assert consumer.stop()
    assert box.replay_all().events == replayed
    told: list[Any] = []
    relay = at.relay(invalidate=told.extend)
    at.feed(1)
    drained(relay)
    relay.close()
    assert at.outbox() == []
    assert [each.key.message_id for each in told] == [1] * replayed + [0]
