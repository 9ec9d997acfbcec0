"""Channel locks: one writer at a time per channel, so that id order is commit order (P3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection

from telegram_hybrid.schema.postgres.sql import fetch


def lock_channels(
    connection: Connection, schema: str, channel_ids: Iterable[int], *, unbounded: bool = False
) -> None:
    """Hold the lock of each channel until this transaction ends; wait for other writers.

    With `unbounded`, it may change as many compressed messages as it likes.

    To be taken before any event id of those channels is drawn. The ids are locked in ascending
    order in one statement, so that two writers with the same channels never deadlock; a
    transaction that needs several channels should name them in one call. Transaction-level, so
    a transaction pooler may stand between (P9). Two channels may share a hash: they then wait
    for each other, and nothing else.
    """
    ordered = sorted(set(channel_ids))
    if not ordered:
        return
    values = {"prefix": lock_prefix(schema), "channel_ids": ordered}
    fetch(connection, _LOCK_UNBOUNDED if unbounded else _LOCK, schema, values)


def lock_prefix(schema: str) -> str:
    """What a channel's id is appended to before it is hashed into its lock's key."""
    return f"telegram_hybrid.channel.{schema}."


def look(connection: Connection, schema: str, channel_ids: Sequence[int]) -> tuple[int, bool]:
    """Return the highest version of the channels, and whether no writer holds a lock of theirs.

    To be asked before a snapshot is taken of what may be cached: in a transaction of its own,
    which ends with this statement. A writer that waits counts as one that holds the lock.
    """
    values = {"prefix": lock_prefix(schema), "channel_ids": list(channel_ids)}
    ((version, quiet),) = fetch(connection, _LOOK, schema, values)
    return version, quiet


_LOOK = """
SELECT coalesce(max((SELECT version FROM "{schema}".channel_heads AS head
                     WHERE head.channel_id = wanted.channel_id)), 0),
       coalesce(bool_and(pg_try_advisory_xact_lock_shared(
           hashtextextended(CAST(:prefix AS text) || wanted.channel_id, 0))), true)
FROM unnest(CAST(:channel_ids AS bigint[])) AS wanted (channel_id)
"""

# MATERIALIZED with ORDER BY: PostgreSQL hands the rows to the locking SELECT in this order. The
# order is that of the lock keys, which is what must be the same for every writer. The transaction
# gets its number here, before it draws the id of an event: relays rely on that (delivery.floor).
_LOCK = """
WITH keys AS MATERIALIZED (
    SELECT DISTINCT hashtextextended(CAST(:prefix AS text) || channel_id, 0) AS key
    FROM unnest(CAST(:channel_ids AS bigint[])) AS channel_id
    ORDER BY key
)
SELECT count(pg_advisory_xact_lock(key)), pg_current_xact_id() FROM keys
"""

# TimescaleDB decompresses whatever lies near what is changed, and stops a transaction that does so
# to 100,000 rows: two marks at both ends of a busy channel's week were too many. Where there is no
# such setting, nothing is set; else it is gone with the transaction (P9).
_LOCK_UNBOUNDED = _LOCK.replace(
    " FROM keys\n",
    """,
       CASE WHEN current_setting('{limit}', true) IS NOT NULL
            THEN set_config('{limit}', '0', true) END
FROM keys
""",
).replace("{limit}", "timescaledb.max_tuples_decompressed_per_dml_transaction")
