"""Replay: stored messages are announced again, as they are now."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from telegram_hybrid import Hybrid
from telegram_hybrid.delivery.replay import replay
from telegram_hybrid.model import EventType
from telegram_hybrid.testing import make_message, make_messages

pytestmark = pytest.mark.integration


def run(hybrid: Hybrid, **choice: Any) -> list[tuple[str, int, int]]:
    """Empty the outbox, replay, and return what was written: type, channel, message."""
    schema = hybrid.settings.database_schema
    with hybrid.transaction() as tx:
        tx.connection.execute(text(f"DELETE FROM {schema}.outbox"))
        written = replay(tx.connection, schema, **choice)
    with hybrid.engine.connect() as connection:
        rows = connection.execute(
            text(f"SELECT type, channel_id, message_id FROM {schema}.outbox ORDER BY id")
        )
        events = [tuple(row) for row in rows]
    assert written == len(events)
    return events


def test_every_message_is_announced_in_order_more_than_a_batch_of_them(hybrid: Hybrid):
    hybrid.messages.save_many(make_messages(1203, channel_id=-1001))
    hybrid.messages.save_many(make_messages(2, channel_id=-1002))
    events = run(hybrid)
    assert events == [
        *((EventType.RECEIVED, -1002, n) for n in (1, 2)),
        *((EventType.RECEIVED, -1001, n) for n in range(1, 1204)),
    ]


def test_one_channel_and_a_time_narrow_the_choice(hybrid: Hybrid):
    messages = make_messages(5, channel_id=-1001)
    hybrid.messages.save_many(messages)
    hybrid.messages.save(make_message(channel_id=-1002))
    since = messages[3].sent_at
    assert [number for _, _, number in run(hybrid, channel_id=-1001, since=since)] == [4, 5]
    assert run(hybrid, channel_id=-1001, since=since + timedelta(days=9)) == []
    assert run(hybrid, channel_id=-1003) == []


def test_a_deleted_message_is_announced_as_deleted(hybrid: Hybrid):
    hybrid.messages.save_many(make_messages(2, channel_id=-1001))
    hybrid.messages.delete(-1001, 1)
    assert run(hybrid) == [(EventType.DELETED, -1001, 1), (EventType.RECEIVED, -1001, 2)]


def test_a_queue_gets_only_what_it_has_not_dealt_with(hybrid: Hybrid):
    # Broken on purpose: without `processed_at >= updated_at` the edit of 1 was not told again.
    messages = make_messages(3, channel_id=-1001)
    hybrid.messages.save_many(messages)
    schema = hybrid.settings.database_schema
    with hybrid.transaction() as tx:
        tx.connection.execute(
            text(
                f"INSERT INTO {schema}.inbox (queue, event_id, channel_id, message_id) "
                f"SELECT 'q', event_id, channel_id, message_id FROM {schema}.outbox "
                "WHERE message_id < 3"
            )
        )
    assert run(hybrid, queue="q") == [(EventType.RECEIVED, -1001, 3)]
    edit = make_message(
        channel_id=-1001,
        message_id=1,
        sent_at=messages[0].sent_at,
        text="SELL",
        edited_at=messages[0].sent_at + timedelta(minutes=1),
    )
    hybrid.messages.save(edit)
    assert [number for _, _, number in run(hybrid, queue="q")] == [1, 3]
    assert len(run(hybrid, queue="another")) == 3


def test_what_still_waits_in_the_outbox_is_not_told_twice(hybrid: Hybrid):
    hybrid.messages.save_many(make_messages(3, channel_id=-1001))
    schema = hybrid.settings.database_schema
    with hybrid.transaction() as tx:
        assert replay(tx.connection, schema, queue="q") == 0
        assert replay(tx.connection, schema) == 3
