"""What waits, as an operator sees it, and taking it away from under the relays."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from stand import Stand, until

from telegram_hybrid.connect.postgres import transaction
from telegram_hybrid.delivery.letterbox import DeadLetters
from telegram_hybrid.errors import InvalidInput, NotFound
from telegram_hybrid.outbox.dead_letters import Outcome
from telegram_hybrid.repositories.outbox import Outbox

pytestmark = pytest.mark.integration


def outbox(at: Stand) -> Outbox:
    return Outbox(lambda: transaction(at.engine), at.schema)


def letters(at: Stand) -> DeadLetters:
    return DeadLetters(lambda: transaction(at.engine), at.schema, at.broker, at.topology)


def test_what_waits_is_listed_by_channel_and_type_and_shown_with_its_payload(redis_at: Stand):
    at = redis_at
    at.feed(4, [-1001, -1002])
    at.execute("UPDATE {s}.outbox SET type = 'orders' WHERE id = (SELECT min(id) FROM {s}.outbox)")
    at.relay(max_attempts=3).step()
    first, second, third, _ = at.outbox()
    box = outbox(at)
    assert [each.id for each in box.list(limit=2)] == [first, second]
    assert [each.id for each in box.list(channel_id=-1001)] == [first, third]
    assert [each.id for each in box.list(type="orders")] == [first]
    assert {each.id for each in box.list(refused=True)} == {first, second}
    assert box.backlog().events == 4
    shown = box.get(second)
    assert shown.payload.startswith('{"channel_id":-1002')
    assert [each.reason for each in shown.history] == [shown.last_error]
    assert box.get(10**9) is None
    assert box.retry(channel_id=-1002) == 1
    for field, wrong in (("channel_id", 0), ("limit", 0), ("type", "a\0")):
        with pytest.raises(InvalidInput) as refused:
            box.list(**{field: wrong})
        assert refused.value.field == field


def test_a_discarded_event_is_history_and_its_channel_goes_on(redis_at: Stand):
    at = redis_at
    at.feed(2)
    first, second = at.outbox()
    letter = letters(at).get(outbox(at).discard(first, reason="a test post"))
    assert (letter.outcome, letter.note, letter.sequence) == (
        Outcome.DISCARDED,
        "a test post",
        first,
    )
    assert letters(at).count() == 0
    assert letters(at).replay(letter.id) is False
    assert at.outbox() == [second]
    with pytest.raises(NotFound, match="does not wait"):
        outbox(at).discard(first, reason="again")
    with pytest.raises(InvalidInput, match="reason"):
        outbox(at).discard(second, reason=" ")


@pytest.mark.parametrize("on_dead", ["continue", "freeze"])
def test_one_that_the_broker_refused_is_discarded_without_waiting(redis_at: Stand, on_dead: str):
    at = redis_at
    at.feed(2)
    first, second = at.outbox()
    relay = at.relay(max_attempts=1 if on_dead == "freeze" else 9, on_dead=on_dead)
    relay.step()
    at.execute(
        "UPDATE {s}.outbox SET not_before = now() + interval '1 hour' WHERE not_before < 'infinity'"
    )
    began = datetime.now(UTC)
    number = outbox(at).discard(first, reason="nobody wants it")
    assert datetime.now(UTC) - began < timedelta(seconds=5)  # the lease lasts for 15
    assert letters(at).get(number).attempts == 1
    assert letters(at).count() == 0
    assert at.outbox() == [second]
    relay.close()


def test_an_event_that_a_relay_has_in_hand_is_not_published_after_its_discard(at: Stand):
    # Broken on purpose: with `free=True` at once in `take`, the relay published it afterwards.
    at.consumer(lambda event, tx: None).declare()
    at.feed(2)
    first, second = at.outbox()
    read, go_on = threading.Event(), threading.Event()

    def held(_changes: object) -> None:
        read.set()
        assert go_on.wait(30)

    relay = at.relay(invalidate=held, lease_seconds=3.0)
    relay.start()
    assert read.wait(30)
    outbox(at).discard(first, reason="too late for it")
    go_on.set()
    until(lambda: at.outbox() == [])
    relay.stop()
    assert [event.sequence for event in at.taken()] == [second]
