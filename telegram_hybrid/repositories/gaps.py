"""Gaps: which ids of a channel are known, told from its keys alone (gaps and islands)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from telegram_hybrid.model import Gap, GapReport
from telegram_hybrid.model.registry import is_supergroup
from telegram_hybrid.schema.postgres.sql import fetch


def report(
    connection: Connection, schema: str, channel_id: int, *, limit: int, after: int
) -> GapReport:
    """Return what is known of a channel's ids, with up to `limit` gaps that end behind `after`.

    One statement, so that all its numbers are of one moment. It walks over the channel's keys in
    their order: its memory does not grow with them.
    """
    values = {"channel_id": channel_id, "limit": limit, "after": after}
    rows = fetch(connection, _REPORT, schema, values)
    known, first, last, sent_at, gap_count, deleted, before, behind = rows[0][:8]
    numbered = is_supergroup(channel_id)
    return GapReport(
        channel_id=channel_id,
        numbered=numbered,
        known=known,
        deleted=deleted,
        first_id=first,
        last_id=last,
        missing=last - first + 1 - known if known else 0,
        gap_count=gap_count,
        head=Gap(first=1, last=first - 1, before=sent_at)
        if numbered and known and first > 1
        else None,
        gaps=tuple(_gap(row[8:]) for row in rows if row[8] is not None),
        migrated_from=before,
        migrated_to=behind,
    )


def _gap(columns: Any) -> Gap:
    first, last, after, before = columns
    return Gap(first=first, last=last, after=after, before=before)


# The window is over the primary key's own order and holds two rows. `keys` is read twice, because
# a CTE that is read twice would be written down whole.
_REPORT = """
WITH totals AS (
    SELECT count(*) AS known, min(message_id) AS first, max(message_id) AS last,
           (array_agg(sent_at) FILTER (WHERE before IS NULL))[1] AS first_at,
           count(*) FILTER (WHERE message_id - before > 1) AS gaps
    FROM (SELECT message_id, sent_at, lag(message_id) OVER (ORDER BY message_id) AS before
          FROM "{schema}".message_keys WHERE channel_id = :channel_id) AS step
), missing AS (
    SELECT before + 1 AS first, message_id - 1 AS last, before_at, sent_at
    FROM (SELECT message_id, sent_at, lag(message_id) OVER ids AS before,
                 lag(sent_at) OVER ids AS before_at
          FROM "{schema}".message_keys
          WHERE channel_id = :channel_id AND message_id >= coalesce(
              (SELECT max(message_id) FROM "{schema}".message_keys
               WHERE channel_id = :channel_id AND message_id <= :after), 0)
          WINDOW ids AS (ORDER BY message_id)) AS step
    WHERE message_id - before > 1 AND message_id - 1 > :after
    ORDER BY message_id
    LIMIT :limit
)
SELECT totals.known, totals.first, totals.last, totals.first_at, totals.gaps,
       (SELECT count(*) FROM "{schema}".messages
        WHERE channel_id = :channel_id AND deleted_at IS NOT NULL),
       (SELECT old_channel_id FROM "{schema}".channel_migrations
        WHERE new_channel_id = :channel_id),
       (SELECT new_channel_id FROM "{schema}".channel_migrations
        WHERE old_channel_id = :channel_id),
       missing.*
FROM totals LEFT JOIN missing ON true
ORDER BY missing.first
"""
