"""Discarding a waiting event: it becomes a dead letter, and no relay publishes it any more.

A relay reads rows ahead and publishes them from memory, for as long as its lease lasts. So a row
may be taken away at once only if no lease holds its shard, or if the row is postponed, which no
relay keeps in memory. Otherwise the shard is taken over, and the old lease waited for.
"""

from __future__ import annotations

import attrs
from sqlalchemy import Connection

from telegram_hybrid.outbox import dead_letters
from telegram_hybrid.schema.postgres.sql import sql

#: Seconds for which a row has to be postponed still, and that a shard is held after the old lease.
MARGIN = 5.0


@attrs.frozen(slots=True)
class Fence:
    """A shard that was taken over; `seconds` from now its former relay publishes nothing more."""

    shard: int
    epoch: int
    seconds: float


def take(
    connection: Connection, schema: str, number: int, note: str, owner: str
) -> int | Fence | None:
    """Discard the event at once if that is safe, and return its letter's number.

    Else take its shard over as `owner`, and return what is to be waited for before `finish`. None
    if no such event waits.
    """
    frozen = connection.execute(sql(_FROZEN, schema), {"id": number}).scalar_one_or_none()
    if frozen is not None and dead_letters.discard(connection, schema, [frozen], note):
        return int(frozen)
    lease = connection.execute(sql(_LEASE, schema), {"id": number}).one_or_none()
    if lease is None:
        return None
    letter = _move(connection, schema, number, note, free=lease.seconds is None)
    if letter is not None or lease.seconds is None:
        return letter
    values = {"shard": lease.shard, "owner": owner, "margin": MARGIN}
    epoch: int = connection.execute(sql(_TAKE_OVER, schema), values).scalar_one()
    return Fence(lease.shard, epoch, lease.seconds)


def finish(
    connection: Connection, schema: str, number: int, note: str, owner: str, fence: Fence
) -> int | None:
    """Discard the event after the wait, and give the shard back; None if it is gone by now, or
    the shard is."""
    values = {"shard": fence.shard, "epoch": fence.epoch, "owner": owner}
    if not connection.execute(sql(_GIVE_BACK, schema), values).rowcount:
        return None
    return _move(connection, schema, number, note, free=True)


def _move(connection: Connection, schema: str, number: int, note: str, *, free: bool) -> int | None:
    values = {"id": number, "note": note, "free": free, "margin": MARGIN}
    found: int | None = connection.execute(sql(_MOVE, schema), values).scalar_one_or_none()
    return found


_FROZEN = f"""
SELECT letter.id
FROM "{{schema}}".dead_letters AS letter, "{{schema}}".outbox AS event
WHERE event.id = :id AND letter.settled_at IS NULL AND {dead_letters.FREEZES}
"""  # noqa: S608

# The lease before the row, as relays do. FOR UPDATE: no relay gets the shard meanwhile.
_LEASE = """
SELECT lease.shard, CASE WHEN lease.expires_at > clock_timestamp() THEN
    CAST(extract(epoch FROM lease.expires_at - clock_timestamp()) AS double precision)
    END AS seconds
FROM "{schema}".relay_shards AS lease
WHERE lease.shard = (SELECT shard FROM "{schema}".outbox WHERE id = :id)
FOR UPDATE
"""

_TAKE_OVER = """
UPDATE "{schema}".relay_shards
SET epoch = epoch + 1, owner = :owner, expires_at = expires_at + make_interval(secs => :margin)
WHERE shard = :shard
RETURNING epoch
"""

_GIVE_BACK = """
UPDATE "{schema}".relay_shards SET owner = NULL, expires_at = NULL
WHERE shard = :shard AND epoch = :epoch AND owner = :owner
"""

_MOVE = """
WITH gone AS (
    DELETE FROM "{schema}".outbox
    WHERE id = :id
      AND (:free OR not_before > clock_timestamp() + make_interval(secs => :margin))
    RETURNING *
)
INSERT INTO "{schema}".dead_letters
    (queue, event_id, type, channel_id, message_id, payload, schema_version, traceparent,
     occurred_at, sequence, attempts, reason, history, settled_at, outcome, note)
SELECT NULL, event_id, type, channel_id, message_id, payload, schema_version, traceparent,
       occurred_at, id, attempts, coalesce(last_error, 'discarded before it was published'),
       history, now(), 'discarded', :note
FROM gone
RETURNING id
"""
