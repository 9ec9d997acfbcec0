"""Claims: what a relay reads from the shards that it holds, and how it settles each row.

Reading takes no lock: the lease keeps others away. Every settlement is fenced by the lease's
epochs, so a relay that lost a shard meanwhile changes nothing there; the new holder then sees the
row again and repeats the event, which is allowed, where losing it is not (P3).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import Connection

from telegram_hybrid.model import EventType
from telegram_hybrid.outbox.leases import Lease
from telegram_hybrid.outbox.rows import OutboxRow
from telegram_hybrid.schema.postgres.sql import sql


@attrs.frozen(slots=True)
class Backlog:
    """How many events wait to be published, and since when the oldest does (UTC, None: none)."""

    events: int
    oldest: datetime | None


@attrs.frozen(slots=True)
class Postponement:
    """Try `row` again in `delay` seconds, and nothing else of its channel before that."""

    row: OutboxRow
    error: str
    delay: float


@attrs.frozen(slots=True)
class Burial:
    """Give `row` up: move it to the dead letters, so that its channel goes on."""

    row: OutboxRow
    reason: str


def pending(
    connection: Connection, schema: str, shards: Sequence[int], *, limit: int
) -> list[OutboxRow]:
    """Return up to `limit` rows of these shards by id, without those of frozen channels.

    A channel with a postponed row is frozen whole, until that row's time has come: its later
    events must not overtake.
    """
    if not shards:
        return []
    rows = connection.execute(sql(_PENDING, schema), {"shards": list(shards), "limit": limit})
    return [OutboxRow(**{**row._mapping, "type": EventType(row.type)}) for row in rows]


def delete(connection: Connection, schema: str, lease: Lease, ids: Sequence[int]) -> int:
    """Delete published rows of shards that `lease` still holds; return how many those were."""
    if not ids:
        return 0
    return _changed(connection, schema, _DELETE, lease, {"ids": list(ids)})


def postpone(
    connection: Connection, schema: str, lease: Lease, postponements: Sequence[Postponement]
) -> int:
    """Count an attempt and freeze the channel of each row; return how many rows that changed."""
    if not postponements:
        return 0
    values = {
        "ids": [item.row.id for item in postponements],
        "errors": [item.error for item in postponements],
        "delays": [item.delay for item in postponements],
    }
    return _changed(connection, schema, _POSTPONE, lease, values)


def bury(connection: Connection, schema: str, lease: Lease, burials: Sequence[Burial]) -> int:
    """Move rows to the dead letters in one statement; return how many that moved."""
    if not burials:
        return 0
    values = {
        "ids": [item.row.id for item in burials],
        "reasons": [item.reason for item in burials],
    }
    return _changed(connection, schema, _BURY, lease, values)


def backlog(connection: Connection, schema: str) -> Backlog:
    """Count what waits; reads the whole outbox, so ask every few seconds at most."""
    count, oldest = connection.execute(sql(_BACKLOG, schema)).one()
    return Backlog(count, oldest)


def _changed(
    connection: Connection, schema: str, statement: str, lease: Lease, values: dict[str, Any]
) -> int:
    fence = {
        "owner": lease.owner,
        "shards": list(lease.epochs.keys()),
        "epochs": list(lease.epochs.values()),
    }
    return connection.execute(sql(_FENCE + statement, schema), fence | values).rowcount


# payload::text: the driver would parse the JSON only for us to write it again.
_PENDING = """
SELECT id, event_id, type, channel_id, message_id, payload::text AS payload, traceparent,
       occurred_at, attempts
FROM "{schema}".outbox
WHERE shard = ANY(CAST(:shards AS smallint[]))
  AND channel_id NOT IN (
      SELECT channel_id FROM "{schema}".outbox WHERE not_before > clock_timestamp()
  )
ORDER BY id
LIMIT :limit
"""

# FOR SHARE: a relay that takes the shard over waits for this transaction, and one that has taken
# it over already is seen here.
_FENCE = """
WITH ours AS MATERIALIZED (
    SELECT lease.shard
    FROM "{schema}".relay_shards AS lease
    JOIN unnest(CAST(:shards AS smallint[]), CAST(:epochs AS bigint[])) AS held (shard, epoch)
      ON held.shard = lease.shard AND held.epoch = lease.epoch
    WHERE lease.owner = :owner
    FOR SHARE OF lease
)
"""

_DELETE = """
DELETE FROM "{schema}".outbox
WHERE id = ANY(CAST(:ids AS bigint[])) AND shard IN (SELECT shard FROM ours)
"""

_POSTPONE = """
UPDATE "{schema}".outbox AS event
SET attempts = event.attempts + 1,
    last_error = later.error,
    not_before = clock_timestamp() + make_interval(secs => later.delay)
FROM unnest(CAST(:ids AS bigint[]), CAST(:errors AS text[]), CAST(:delays AS double precision[]))
    AS later (id, error, delay)
WHERE event.id = later.id AND event.shard IN (SELECT shard FROM ours)
"""

_BURY = """
, given_up AS (
    DELETE FROM "{schema}".outbox AS event
    USING unnest(CAST(:ids AS bigint[]), CAST(:reasons AS text[])) AS dead (id, reason)
    WHERE event.id = dead.id AND event.shard IN (SELECT shard FROM ours)
    RETURNING event.*, dead.reason
)
INSERT INTO "{schema}".dead_letters
    (queue, event_id, type, channel_id, message_id, payload, traceparent, occurred_at,
     sequence, attempts, reason)
SELECT NULL, event_id, type, channel_id, message_id, payload, traceparent, occurred_at,
       id, attempts + 1, reason
FROM given_up
"""

_BACKLOG = """
SELECT count(*), min(occurred_at) FROM "{schema}".outbox
"""
