"""Leases: which relay owns which shards of the outbox, for how long, and since which epoch.

A lease is a row, not a lock, so that it crosses a transaction pooler (P9) and outlives a broken
connection. Its times are the database's clock. The epoch is the fencing token: it grows whenever
a shard changes hands, and whatever a relay removes is removed only while its epoch still stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

import attrs
from sqlalchemy import Connection

from telegram_hybrid.schema.postgres.sql import sql
from telegram_hybrid.schema.postgres.tables import SHARDS


@attrs.frozen(slots=True)
class Lease:
    """The shards that `owner` held when it last asked, each with its epoch.

    `server` is when that started which was asked: it tells its run from those of all others.
    """

    owner: str
    epochs: Mapping[int, int] = attrs.field(factory=dict)
    server: datetime | None = None

    @property
    def shards(self) -> list[int]:
        """The shard numbers, ascending."""
        return sorted(self.epochs)


@attrs.frozen(slots=True)
class Grant:
    """What a relay was given: the `lease` for it all, and for each of its shards the floor, at or
    below which no event waits.

    `share` is how many shards are fair. `next_end` is in how many seconds the first lease of
    another relay ends, if that does not renew it (None: no other has any).
    """

    lease: Lease
    share: int
    floors: Mapping[int, int]
    next_end: float | None


def acquire(
    connection: Connection,
    schema: str,
    held: Lease,
    *,
    seconds: float,
    floors: Mapping[int, int] = MappingProxyType({}),
) -> Grant:
    """Renew what `held.owner` has, and take what is free or expired, up to its fair share.

    That is the shards divided by the relays that said within the last `seconds` that they live.
    Who holds more, because another relay came, gives the rest back with `release` once it has
    settled what is under way. `floors`, {shard: floor}, are kept for those shards whose epoch
    still stands.

    A shard keeps its epoch only if `held` names that epoch. So a relay that was restarted under
    its old name begins with `Lease(name)`, gets its shards back at once, and fences off whatever
    its predecessor might still have under way. So does one whose lease is of another server: one
    that was promoted may lack the last commits, and give their numbers again, to other events.
    """
    values = {"owner": held.owner, "seconds": seconds}
    connection.execute(sql(_REGISTER, schema), values)
    living, next_end, server = connection.execute(sql(_LIVING, schema), {"owner": held.owner}).one()
    if held.server != server:
        held = Lease(held.owner)
    share = -(-SHARDS // max(1, living))
    rows = connection.execute(
        sql(_ACQUIRE, schema),
        {
            **values,
            "share": share,
            "shards": list(held.epochs.keys()),
            "epochs": list(held.epochs.values()),
            "floors": [floors.get(shard) for shard in held.epochs],
        },
    ).all()
    lease = Lease(held.owner, {row.shard: row.epoch for row in rows}, server)
    return Grant(lease, share, {row.shard: row.floor for row in rows}, next_end)


def release(connection: Connection, schema: str, lease: Lease) -> None:
    """Give the shards back, so that others need not wait for the lease to expire."""
    connection.execute(
        sql(_RELEASE, schema),
        {
            "owner": lease.owner,
            "shards": list(lease.epochs.keys()),
            "epochs": list(lease.epochs.values()),
        },
    )


def leave(connection: Connection, schema: str, owner: str) -> None:
    """Count no more among the living, so that the others take all."""
    connection.execute(sql(_LEAVE, schema), {"owner": owner})


_REGISTER = """
INSERT INTO "{schema}".relays (owner, expires_at)
VALUES (:owner, clock_timestamp() + make_interval(secs => :seconds))
ON CONFLICT (owner) DO UPDATE SET expires_at = EXCLUDED.expires_at
"""

# With the others that are long gone.
_LEAVE = """
DELETE FROM "{schema}".relays
WHERE owner IN (
    SELECT owner FROM "{schema}".relays
    WHERE owner = :owner OR expires_at < clock_timestamp() - interval '1 hour'
    FOR UPDATE SKIP LOCKED
)
"""

_LIVING = """
SELECT count(*) AS living,
       (SELECT CAST(extract(epoch FROM min(expires_at) - clock_timestamp()) AS double precision)
        FROM "{schema}".relay_shards
        WHERE owner <> :owner AND expires_at > clock_timestamp()) AS next_end,
       pg_postmaster_start_time() AS server
FROM "{schema}".relays WHERE expires_at > clock_timestamp()
"""

# SKIP LOCKED: a shard that another relay is taking at this moment is not worth waiting for.
_ACQUIRE = """
WITH kept AS (
    SELECT relay_shards.shard, held.epoch AS held_epoch, held.floor
    FROM "{schema}".relay_shards
    LEFT JOIN unnest(
        CAST(:shards AS smallint[]), CAST(:epochs AS bigint[]), CAST(:floors AS bigint[])
    ) AS held (shard, epoch, floor) ON held.shard = relay_shards.shard
    WHERE relay_shards.owner = :owner
    ORDER BY relay_shards.shard
    FOR UPDATE OF relay_shards SKIP LOCKED
), free AS (
    SELECT shard, NULL::bigint AS held_epoch, NULL::bigint AS floor
    FROM "{schema}".relay_shards
    WHERE owner IS NULL OR (owner <> :owner AND expires_at <= clock_timestamp())
    ORDER BY shard
    LIMIT greatest(0, :share - (SELECT count(*) FROM kept))
    FOR UPDATE SKIP LOCKED
), mine AS (
    SELECT * FROM kept UNION ALL SELECT * FROM free
)
UPDATE "{schema}".relay_shards AS lease
SET epoch = CASE WHEN lease.owner = :owner AND lease.epoch = mine.held_epoch THEN lease.epoch
                 ELSE lease.epoch + 1 END,
    floor = CASE WHEN lease.owner = :owner AND lease.epoch = mine.held_epoch
                 THEN coalesce(mine.floor, lease.floor) ELSE lease.floor END,
    owner = :owner,
    expires_at = clock_timestamp() + make_interval(secs => :seconds)
FROM mine
WHERE lease.shard = mine.shard
RETURNING lease.shard, lease.epoch, lease.floor
"""

_RELEASE = """
UPDATE "{schema}".relay_shards AS lease
SET owner = NULL, expires_at = NULL
FROM unnest(CAST(:shards AS smallint[]), CAST(:epochs AS bigint[])) AS held (shard, epoch)
WHERE lease.shard = held.shard AND lease.epoch = held.epoch AND lease.owner = :owner
"""
