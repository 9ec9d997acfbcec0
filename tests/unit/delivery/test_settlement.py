"""Settlement: what becomes of an event that the broker refused."""

from datetime import UTC, datetime
from uuid import uuid4

from telegram_hybrid.delivery.backoff import Backoff
from telegram_hybrid.delivery.confirms import Receipt, Verdict
from telegram_hybrid.delivery.settlement import decide
from telegram_hybrid.model import EventType
from telegram_hybrid.outbox.claims import Burial, Postponement
from telegram_hybrid.outbox.rows import OutboxRow


def row(attempts: int) -> OutboxRow:
    return OutboxRow(
        id=1,
        event_id=uuid4(),
        type=EventType.RECEIVED,
        channel_id=1,
        message_id=1,
        payload="{}",
        traceparent=None,
        occurred_at=datetime.now(UTC),
        attempts=attempts,
    )


def refused(attempts: int, **options) -> Postponement | Burial:
    return decide(row(attempts), Receipt("1", Verdict.RETURNED, "NO_ROUTE"), chance=0.0, **options)


def test_a_refused_event_waits_with_the_brokers_reason_and_longer_each_time():
    delays = []
    for attempts in range(5):
        decision = refused(attempts, backoff=Backoff(first=1, most=5))
        assert isinstance(decision, Postponement)
        assert decision.error == "NO_ROUTE"
        delays.append(decision.delay)
    assert delays == [1, 2, 4, 5, 5]


def test_the_last_attempt_gives_the_event_up_and_its_channel_goes_on():
    assert isinstance(refused(1, max_attempts=3), Postponement)
    last = refused(2, max_attempts=3)
    assert isinstance(last, Burial)
    assert last.reason == "NO_ROUTE"


def test_where_the_channel_is_to_freeze_the_event_is_given_up_and_stays_in_its_way():
    # Broken on purpose: ignoring on_dead let the channel's next events go out.
    assert refused(2, max_attempts=3, on_dead="freeze").freeze is True
    assert refused(2, max_attempts=3).freeze is False
