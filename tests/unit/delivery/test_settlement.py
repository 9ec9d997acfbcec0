"""Settlement: which rows go, wait, or are given up."""

from datetime import UTC, datetime
from uuid import uuid4

import attrs
import pytest

from telegram_hybrid.delivery.backoff import Backoff
from telegram_hybrid.delivery.confirms import CONFIRMED, Receipt, Verdict
from telegram_hybrid.delivery.settlement import settle
from telegram_hybrid.model import EventType
from telegram_hybrid.outbox.rows import OutboxRow

RETURNED = Receipt(Verdict.RETURNED, "NO_ROUTE")
NACKED = Receipt(Verdict.NACKED, "nack")
UNKNOWN = Receipt(Verdict.UNKNOWN, "timed out")
HELD = Receipt(Verdict.HELD)


def row(number: int, channel: int = 1, attempts: int = 0) -> OutboxRow:
    return OutboxRow(
        id=number,
        event_id=uuid4(),
        type=EventType.RECEIVED,
        channel_id=channel,
        message_id=number,
        payload="{}",
        traceparent=None,
        occurred_at=datetime.now(UTC),
        attempts=attempts,
    )


def decide(rows, receipts, **options):
    return settle(rows, receipts, chance=lambda: 0.0, **options)


def test_only_confirmed_rows_are_deleted():
    # Broken on purpose: deleting HELD rows as well fails here and loses events (P3).
    rows = [row(1, 1), row(2, 2), row(3, 3), row(4, 4), row(5, 5)]
    settlement = decide(rows, [CONFIRMED, RETURNED, NACKED, UNKNOWN, HELD])
    assert settlement.delete == [1]
    assert [item.row.id for item in settlement.postpone] == [2, 3]
    assert settlement.bury == []
    assert settlement.doubt == "timed out"


def test_a_refused_row_freezes_its_channel_once_and_counts_no_later_row():
    rows = [row(1), row(2), row(3), row(4, channel=2)]
    settlement = decide(rows, [RETURNED, RETURNED, HELD, CONFIRMED])
    assert [item.row.id for item in settlement.postpone] == [1]
    assert settlement.delete == [4]
    assert settlement.doubt is None


def test_the_last_attempt_gives_the_event_up_with_the_brokers_reason():
    settlement = decide([row(1, attempts=2)], [RETURNED], max_attempts=3)
    assert settlement.postpone == []
    assert [(item.row.id, item.reason) for item in settlement.bury] == [(1, "NO_ROUTE")]


def test_later_refusals_wait_longer():
    delays = [
        decide([row(1, attempts=n)], [NACKED], backoff=Backoff(first=1, most=5)).postpone[0].delay
        for n in range(5)
    ]
    assert delays == [1, 2, 4, 5, 5]


def test_an_event_of_unknown_fate_costs_no_attempt():
    settlement = decide([row(1, attempts=38), row(2)], [UNKNOWN, HELD], max_attempts=39)
    assert settlement == attrs.evolve(settlement, delete=[], postpone=[], bury=[])
    assert settlement.doubt


def test_a_missing_receipt_is_an_error_and_not_a_guess():
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        decide([row(1), row(2)], [CONFIRMED])
