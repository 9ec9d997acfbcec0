"""Shards: from where a relay looks, so that it passes nothing that a look left out."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from telegram_hybrid.delivery.confirms import Receipt, Verdict
from telegram_hybrid.delivery.pipeline import Pipeline
from telegram_hybrid.delivery.shards import Shards
from telegram_hybrid.outbox.claims import Found
from telegram_hybrid.outbox.rows import OutboxRow

SHARD = 1
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def row(number: int, channel: int = SHARD) -> OutboxRow:
    return OutboxRow(
        id=number,
        event_id=UUID(int=number),
        type="message.received",
        channel_id=channel,
        message_id=number,
        payload="{}",
        traceparent=None,
        occurred_at=WHEN,
    )


def test_without_strict_order_a_later_event_may_wait_for_longer_than_an_earlier_one():
    """So what `frozen` tells is not where the left out events of a channel begin."""
    pipeline = Pipeline(window=10, strict=False)
    pipeline.offer([row(1), row(2)])
    pipeline.take(2)
    for number in (1, 2):  # each refused when the one before is settled
        pipeline.answered([Receipt(str(UUID(int=number)), Verdict.NACKED)])
        done = pipeline.unsettled()
        assert list(done.refused) == [number]
        pipeline.settled(done)


def test_the_floor_stays_below_all_events_of_a_channel_that_waits():
    # Broken on purpose: with the lowest event that waits, the floor passed 5.
    shards = Shards()
    shards.begin({SHARD: 4})

    def look(found: Found) -> int:
        shards.expect()
        asks = shards.asks(10, lambda _: 0, frozenset(), full=False)
        shards.looked(asks, found)
        return asks[0].floor

    # The time of 5 has come, that of 7 has not: both are left out.
    frozen = {SHARD: 7}
    look(Found([row(9, channel=SHARD + 16)], frozen, ended=100))
    shards.deleted(101)
    look(Found([], frozen, ended=200))
    assert look(Found([row(5), row(7)], {}, ended=300)) == 4
    shards.deleted(301)
    look(Found([], {}, ended=400))
    assert look(Found([], {}, ended=400)) == 9
