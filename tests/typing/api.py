"""The public API as its users' type checkers see it: `nox -s types` checks this file too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import assert_type

import telegram_hybrid as th
from telegram_hybrid import legacy

settings = th.Settings.from_url("postgresql://db/telegram", redis="redis://cache/0")


def messages() -> Iterator[th.Message]:
    yield from ()


with th.connect(settings) as hybrid:
    assert_type(hybrid, th.Hybrid)
    assert_type(hybrid.messages.save_many(messages()), th.SaveCounts)
    assert_type(hybrid.messages.get(-100, 1), th.Message | None)
    assert_type(hybrid.messages.get_many(-100, [1]), dict[int, th.Message])
    assert_type(hybrid.messages.latest(-100, limit=5), list[th.Message])
    assert_type(hybrid.messages.after(-100, message_id=5), list[th.Message])
    assert_type(hybrid.messages.seen(-100, range(5)), set[int])
    assert_type(hybrid.messages.mark(-100, 1, th.Status.QUEUED), th.Message)
    assert_type(hybrid.messages.mark_many(-100, [1], th.Status.QUEUED), dict[int, th.Message])
    assert_type(
        hybrid.messages.mark_many(-100, {1: th.Status.FAILED}, reason="late"), dict[int, th.Message]
    )
    assert_type(hybrid.messages.request_reprocess(-100, range(5)), dict[int, th.Message])
    assert_type(hybrid.messages.pending(-100, limit=5), list[th.Message])
    claims = hybrid.messages.claim("worker", limit=5, lease=60.0, channels=[-100])
    assert_type(claims, list[th.Claim])
    assert_type(hybrid.messages.renew(claims[0], lease=60.0), list[th.Claim])
    assert_type(hybrid.messages.settle(claims, th.Status.PUBLISHED), list[th.Message])
    assert_type(hybrid.messages.release(claims), int)
    assert_type(hybrid.messages.delete(-100, 1, reason="spam"), bool)
    assert_type(hybrid.messages.delete_many(-100, {1, 2}, at_most=5), set[int])
    assert_type(hybrid.messages.restore(-100, 1), th.Message)
    assert_type(hybrid.messages.restore_many(-100, [1]), set[int])
    assert_type(hybrid.messages.revisions(-100, 1), list[th.Revision])
    page = hybrid.messages.changes(None, limit=5, channels=[-100])
    assert_type(page, th.Changes)
    assert_type(page.cursor, str)
    assert_type(list(page), list[th.MessageChange])
    hits = hybrid.messages.search("long", channels=[-100], limit=5, language="english")
    assert_type(hits, th.FoundPage)
    assert_type(hits.cursor, str | None)
    assert_type([(found.message, found.rank) for found in hits], list[tuple[th.Message, float]])
    hybrid.messages.search("lon", match=th.Match.SUBSTRING, cursor=hits.cursor)
    hybrid.index_substrings()
    assert_type(hybrid.channels.get(-100), th.Channel | None)
    assert_type(hybrid.channels.record_migration(-5, -1001649127710), th.Migration)
    assert_type(hybrid.channels.lineage(-5), tuple[int, ...])
    assert_type(hybrid.channels.gaps(-100, limit=5), th.GapReport)
    assert_type(hybrid.messages.history(-5, after=th.MessageKey(-5, 1)), list[th.Message])
    assert_type(hybrid.statistics.hourly(-100), th.Series)
    assert_type(hybrid.statistics.daily(since=datetime(2026, 1, 1, tzinfo=UTC)), th.Series)
    assert_type(hybrid.statistics.summary(-100).latency, th.Latency | None)
    assert_type([row.by_status for row in hybrid.statistics.hourly()], list[dict[th.Status, int]])
    with hybrid.transaction() as tx:
        assert_type(tx.messages.save_batch([]), list[th.Saved])
        assert_type(tx.messages.mark(-100, 1, th.Status.QUEUED), th.Message)
        assert_type(tx.messages.restore_many(-100, [1]), set[int])
        assert_type(tx.messages.settle(claims[0], th.Status.FAILED), list[th.Message])

    assert_type(legacy.migrate(hybrid, "postgresql://old/telegram", dry_run=True), legacy.Migrated)
    assert_type(legacy.rollback(hybrid), legacy.RolledBack)

    assert_type(hybrid.migrate().storage, str)
    assert_type(hybrid.maintain(message_window=90 * 86_400.0, compress_window=None).messages, int)
    assert_type(hybrid.settings.partition_interval, float)

with th.embedded() as own:
    assert_type(own, th.Hybrid)
