"""The log of changes: one row for each change of a message.

Written with the events, by `append_changes`. It outlives the outbox, whose rows go when they are
published, and is read by pollers. Within a channel its rows come in the order of the commits, by
version; `channel_heads` tells which channels have any that a reader has not got, so that what did
not change costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

import attrs
from sqlalchemy import Connection

from telegram_hybrid.schema.postgres.sql import array, fetch


@attrs.frozen(slots=True, kw_only=True)
class LoggedChange:
    """One row. `sent_at` is where its message is stored; None: nowhere any more."""

    channel_id: int
    version: int
    message_id: int
    type: str
    status: str | None
    changed_at: datetime
    sent_at: datetime | None


@attrs.frozen(slots=True)
class Answer:
    """What a reader is told.

    `changes` go channel by channel, those that are furthest behind first, each by version.
    `begun` is where the channels begin that the reader had not asked for before, if not with their
    first change. `behind` is {channel_id: version} of channels whose changes up to there are
    forgotten, but not read; `ahead`, of channels that have not come as far as the reader says.
    """

    changes: list[LoggedChange]
    begun: dict[int, int]
    behind: dict[int, int]
    ahead: dict[int, int]


def read(
    connection: Connection,
    schema: str,
    versions: Mapping[int, int],
    *,
    everywhere: bool,
    channels: Collection[int] | None,
    limit: int,
) -> Answer:
    """Return up to `limit` changes behind `versions`, {channel_id: version}, in one statement.

    Of `channels` (None: all). One that is not in `versions` begins with its first change if the
    reader has been `everywhere`, else with the oldest that is kept.
    """
    values = {
        "channel_ids": array(versions),
        "versions": array(versions.values()),
        "everywhere": everywhere,
        "wanted": None if channels is None else array(channels),
        "room": limit,
    }
    answer = Answer([], {}, {}, {})
    told = {"begun": answer.begun, "behind": answer.behind, "ahead": answer.ahead}
    for kind, channel_id, version, message_id, type_, status, changed_at, sent_at in fetch(
        connection, _READ, schema, values
    ):
        if kind in told:
            told[kind][channel_id] = version
            continue
        answer.changes.append(
            LoggedChange(
                channel_id=channel_id,
                version=version,
                message_id=message_id,
                type=type_,
                status=status,
                changed_at=changed_at,
                sent_at=sent_at,
            )
        )
    return answer


def present(
    connection: Connection, schema: str, channels: Collection[int] | None
) -> dict[int, int]:
    """Return the version that each of `channels` (None: all) has reached."""
    wanted = None if channels is None else array(channels)
    return dict(fetch(connection, _PRESENT, schema, {"wanted": wanted}))


def overdue(connection: Connection, schema: str, *, seconds: float) -> list[int]:
    """Return the channels that have changes older than `seconds`, by id."""
    return [channel for (channel,) in fetch(connection, _OVERDUE, schema, {"seconds": seconds})]


def forget(
    connection: Connection, schema: str, channel_id: int, *, seconds: float, limit: int
) -> int:
    """Delete up to `limit` changes of a channel that are older than `seconds`, and note up to
    which version; return how many those were."""
    values = {"channel_id": channel_id, "seconds": seconds, "limit": limit}
    ((count,),) = fetch(connection, _FORGET, schema, values)
    return int(count)


_READ = """
SELECT * FROM "{schema}".read_changes(
    CAST(:channel_ids AS bigint[]), CAST(:versions AS bigint[]), CAST(:everywhere AS boolean),
    CAST(:wanted AS bigint[]), CAST(:room AS integer)
)
"""

_PRESENT = """
SELECT channel_id, version FROM "{schema}".channel_heads
WHERE CAST(:wanted AS bigint[]) IS NULL OR channel_id = ANY(CAST(:wanted AS bigint[]))
"""

_OVERDUE = """
SELECT head.channel_id
FROM "{schema}".channel_heads AS head
LEFT JOIN "{schema}".message_change_floors AS floor USING (channel_id)
CROSS JOIN LATERAL (
    SELECT changed_at
    FROM "{schema}".message_changes AS change
    WHERE change.channel_id = head.channel_id AND change.version > coalesce(floor.version, 0)
    ORDER BY version
    LIMIT 1
) AS oldest
WHERE oldest.changed_at < now() - make_interval(secs => :seconds)
ORDER BY head.channel_id
"""

# The oldest by version, up to the first that stays: what is kept has no gap, also where the
# database's clock was set back. Nothing is locked that writers or readers want.
_FORGET = """
WITH oldest AS MATERIALIZED (
    SELECT version, changed_at < now() - make_interval(secs => :seconds) AS old
    FROM "{schema}".message_changes
    WHERE channel_id = :channel_id
      AND version > coalesce((SELECT version FROM "{schema}".message_change_floors
                              WHERE channel_id = :channel_id), 0)
    ORDER BY version
    LIMIT :limit
), gone AS (
    DELETE FROM "{schema}".message_changes
    WHERE channel_id = :channel_id
      AND version <= (SELECT max(version) FROM oldest
                      WHERE version < coalesce((SELECT min(version) FROM oldest WHERE NOT old),
                                               9223372036854775807))
    RETURNING version
), noted AS (
    INSERT INTO "{schema}".message_change_floors AS floor (channel_id, version)
    SELECT :channel_id, max(version) FROM gone HAVING count(*) > 0
    ON CONFLICT (channel_id) DO UPDATE SET version = greatest(floor.version, EXCLUDED.version)
)
SELECT count(*) FROM gone
"""
