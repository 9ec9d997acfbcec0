"""There and back on every kind of PostgreSQL; the original has a hypertable where that can be."""

from __future__ import annotations

import originals
import pytest

from telegram_hybrid import Channel, Hybrid, legacy
from telegram_hybrid.errors import NotFound
from telegram_hybrid.testing import make_message

from .conftest import Dump, Original

pytestmark = pytest.mark.integration

FIRST = originals.CHANNELS[0]

COUNTS = """
SELECT count(*), count(DISTINCT (channel_id, message_id)),
       count(DISTINCT (channel_id, message_id, coalesce(text, ''), caption)),
       count(DISTINCT channel_id)
FROM {old}.messages
"""
UNDATED = """
SELECT count(*) FROM (SELECT FROM {old}.messages GROUP BY channel_id, message_id
                      HAVING count(telegram_date) = 0) AS message
"""
DELETED = """
SELECT count(DISTINCT (channel_id, message_id)) FROM {old}.messages WHERE deleted_at IS NOT NULL
"""
BY_CHANNEL = """
SELECT channel_id::bigint, count(*), count(DISTINCT message_id) FROM {old}.messages GROUP BY 1
"""


def test_the_report_says_what_direct_counts_say(hybrid: Hybrid, original: Original) -> None:
    originals.fill(original.connection, original.schema, 1_200)
    before = original.ask(
        "SELECT md5(string_agg(m::text, '' ORDER BY id)) FROM {old}.messages AS m"
    )
    done = legacy.migrate(hybrid, original.url, schema=original.schema)
    ((rows, messages, texts, channels),) = original.ask(COUNTS)
    found = done.found
    assert (found.rows, found.messages, found.channels) == (rows, messages, channels)
    assert found.merged == rows
    assert found.duplicates == rows - messages == 60
    assert found.revisions == texts - messages == 30
    assert found.deleted == original.one(DELETED) > 0
    notices = {notice.split(":")[0]: count for notice, count in found.notices.items()}
    assert notices["telegram_date missing"] == original.one(UNDATED) == 120
    assert found.refused == {}
    assert (done.brought, done.present, done.revisions) == (messages, 0, found.revisions)
    assert done.problems == ()
    assert [each.verified for each in done.channels] == [each.messages for each in done.channels]
    by_channel = {each.channel_id: (each.rows, each.messages) for each in done.channels}
    assert by_channel == {number: (n, m) for number, n, m in original.ask(BY_CHANNEL)}
    stored = original.one(f"SELECT count(*) FROM {hybrid.settings.database_schema}.messages")
    assert stored == messages
    # History is not announced, and the source is as it was.
    assert original.one(f"SELECT count(*) FROM {hybrid.settings.database_schema}.outbox") == 0
    after = original.ask("SELECT md5(string_agg(m::text, '' ORDER BY id)) FROM {old}.messages AS m")
    assert after == before
    channel = hybrid.channels.get(FIRST)
    assert channel is not None
    assert channel.label == "signals"
    assert hybrid.channels.get(-1009999999999) is not None


def test_the_store_is_as_it_was(hybrid: Hybrid, original: Original, dump: Dump) -> None:
    # Broken on purpose: leaving the revisions that were added to stored messages.
    hybrid.channels.register(Channel(channel_id=FIRST, label="ours"))
    hybrid.messages.save_many(
        make_message(channel_id=FIRST, message_id=n, text=f"ours {n}") for n in range(1, 40)
    )
    hybrid.messages.save(make_message(channel_id=FIRST, message_id=3, text="ours, edited"))
    before = dump()
    originals.fill(original.connection, original.schema, 600)
    done = legacy.migrate(hybrid, original.url, schema=original.schema)
    assert (done.present, done.brought) == (38, 562)
    assert dump() != before
    removed = legacy.rollback(hybrid)
    assert (removed.messages, removed.stayed) == (562, 0)
    assert removed.revisions == done.revisions > 39
    assert removed.channels == 3
    assert dump() == before
    with pytest.raises(NotFound):
        legacy.rollback(hybrid)
    assert legacy.migrate(hybrid, original.url, schema=original.schema).brought == 562
