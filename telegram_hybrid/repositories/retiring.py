"""Retention: old messages go by whole partitions or chunks, and what was said of them follows.

A part goes in one transaction, which leaves the ids of what was in it in a table
`messages_retired_<number>`. Batch by batch, under the locks of their channels, their revisions
follow and their cached values are invalidated; then the table goes. Who dies halfway leaves that
table, and the next run begins with it. The keys stay: a redelivery is known for one, announces
nothing and stores nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

from sqlalchemy import Connection, Engine

from telegram_hybrid.connect.postgres import transaction
from telegram_hybrid.errors import DatabaseUnavailable, WriteConflict
from telegram_hybrid.model import Change, EventType, MessageKey
from telegram_hybrid.repositories.partitions import Partitions
from telegram_hybrid.repositories.transaction import Transactions
from telegram_hybrid.repositories.writing import Writer
from telegram_hybrid.schema.postgres import timescale
from telegram_hybrid.schema.postgres.ranges import Part, parts
from telegram_hybrid.schema.postgres.sql import array, sql

#: Messages of one transaction.
BATCH = 1_000
#: How often a part is tried that somebody holds. After half a second of waiting we give way: before
#: PostgreSQL looks for deadlocks, and so that nobody waits behind us for long. Of a writer that has
#: read from the part and waits for us already it tells at once.
TRIES = 5
#: Is told how many of how many parts are done.
Progress = Callable[[int, int], object]


class Retiring:
    """Has old messages go. `engine` reaches PostgreSQL itself, not a pooler."""

    def __init__(
        self, engine: Engine, schema: str, transactions: Transactions, partitions: Partitions
    ) -> None:
        self._engine = engine
        self._schema = schema
        self._transactions = transactions
        self._partitions = partitions

    def retire(self, before: datetime, *, batch: int = BATCH, progress: Progress) -> int:
        """Remove the parts in which everything was sent before then; return how many messages.

        A part that somebody holds is left to the next run. Raises `DatabaseError`.
        """
        count = sum(self._follow(table, batch) for table in self._left())
        with transaction(self._engine) as connection:
            old = [part for part in parts(connection, self._schema) if part.upper <= before]
        progress(0, len(old))
        for number, part in enumerate(old, start=1):
            if (table := self._remove(part)) is not None:
                count += self._follow(table, batch)
            progress(number, len(old))
        if old:
            self._partitions.forget()
        return count

    def _left(self) -> list[str]:
        """The tables of ids that a run before us has not come to the end of."""
        with transaction(self._engine) as connection:
            rows = connection.execute(sql(_LEFT, self._schema), {"schema": self._schema})
            return list(rows.scalars())

    def _remove(self, part: Part) -> str | None:
        """Remove a part and leave the ids of its messages; return the table that has them."""
        for attempt in range(1, TRIES + 1):
            try:
                with transaction(self._engine) as connection:
                    return _remove(connection, self._schema, part)
            except (DatabaseUnavailable, WriteConflict):
                if attempt == TRIES:
                    # Whoever holds it may do so for long; a server that is gone says so next time.
                    return None
        return None

    def _follow(self, table: str, batch: int) -> int:
        """Have everything else that there is of these messages go; return how many they are."""
        total = 0
        while True:
            with self._transactions.begin() as tx:
                count = tx.follow(partial(_settle, schema=self._schema, table=table, batch=batch))
            total += count
            if count < batch:
                break
        with transaction(self._engine) as connection:
            connection.execute(sql(_ALONE, self._schema), {"name": _lock(self._schema)})
            connection.execute(sql(_DROP.replace("{table}", table), self._schema))
        return total


def _remove(connection: Connection, schema: str, part: Part) -> str | None:
    connection.execute(sql(_ALONE, schema), {"name": _lock(schema)})
    number: int | None = connection.execute(sql(_NUMBER, schema), {"name": part.name}).scalar()
    if number is None:
        return None  # another run was faster
    table = f"messages_retired_{number}"
    connection.execute(sql("SET LOCAL lock_timeout = '500ms'", schema))
    connection.execute(sql(f"LOCK TABLE {part.name} IN SHARE ROW EXCLUSIVE MODE", schema))
    connection.execute(sql(_IDS.replace("{table}", table).replace("{part}", part.name), schema))
    connection.execute(sql(_KEY.replace("{table}", table), schema))
    found = timescale.storage(connection, schema)
    if found.hypertable:
        statement = _DROP_CHUNK.replace("{timescale}", found.timescale.schema or "")
        bounds = {"lower": part.lower, "upper": part.upper}
        connection.execute(sql(statement, schema), bounds).all()
    else:
        connection.execute(sql(f"DROP TABLE {part.name}", schema))
    return table


def _settle(writer: Writer, schema: str, table: str, batch: int) -> int:
    """Forget the revisions of some, and count these messages as changed: the cache follows."""
    writer.execute(_ALONE, name=_lock(schema))
    there = (table,) in writer.execute(_LEFT, schema=schema)
    rows = writer.execute(_SOME.replace("{table}", table), limit=batch) if there else []
    if not rows:
        return 0
    writer.lock({channel_id for channel_id, _ in rows})
    gone = writer.execute(
        _RETIRE.replace("{table}", table),
        channel_ids=array(channel_id for channel_id, _ in rows),
        message_ids=array(message_id for _, message_id in rows),
    )
    writer.changed(
        [
            Change(MessageKey(channel_id, message_id), version, EventType.DELETED)
            for channel_id, message_id, version, _ in gone
        ],
        {channel_id: before for channel_id, _, _, before in gone},
    )
    return len(rows)


def _lock(schema: str) -> str:
    return f"telegram_hybrid.retire.{schema}"


# One run at a time: it comes before the locks of channels, which writers never hold beside it.
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"

# By a look at the rows: what `to_regclass` says may be older than the lock that one has waited for.
_LEFT = r"""
SELECT relname
FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = relnamespace
WHERE nspname = :schema AND relkind = 'r' AND relname ~ '^messages_retired_\d+$'
ORDER BY 1
"""

_NUMBER = "SELECT CAST(CAST(to_regclass(:name) AS oid) AS bigint)"

_DROP = 'DROP TABLE IF EXISTS "{schema}".{table}'

_IDS = 'CREATE TABLE "{schema}".{table} AS SELECT DISTINCT channel_id, message_id FROM {part}'

_KEY = 'ALTER TABLE "{schema}".{table} ADD PRIMARY KEY (channel_id, message_id)'

_DROP_CHUNK = """
SELECT "{timescale}".drop_chunks(
    '"{schema}".messages', older_than => CAST(:upper AS timestamptz),
    newer_than => CAST(:lower AS timestamptz))
"""

_SOME = """
SELECT channel_id, message_id FROM "{schema}".{table} ORDER BY channel_id, message_id LIMIT :limit
"""

# The heads come to the new versions, or the cache would refuse what is loaded from now on.
_RETIRE = """
WITH old AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:channel_ids AS bigint[]), CAST(:message_ids AS bigint[]))
        AS old (channel_id, message_id)
), gone AS (
    DELETE FROM "{schema}".{table} AS retired USING old
    WHERE retired.channel_id = old.channel_id AND retired.message_id = old.message_id
    RETURNING old.channel_id, old.message_id, nextval('"{schema}".message_version') AS version
), forgotten AS (
    DELETE FROM "{schema}".message_revisions AS revision USING old
    WHERE revision.channel_id = old.channel_id AND revision.message_id = old.message_id
), unconfirmed AS (
    DELETE FROM "{schema}".message_confirmations AS again USING old
    WHERE again.channel_id = old.channel_id AND again.message_id = old.message_id
), heads AS (
    INSERT INTO "{schema}".channel_heads AS head (channel_id, version, changed_at)
    SELECT channel_id, max(version), clock_timestamp() FROM gone GROUP BY channel_id
    ON CONFLICT (channel_id) DO UPDATE
    SET version = EXCLUDED.version, changed_at = EXCLUDED.changed_at
    WHERE head.version < EXCLUDED.version
)
SELECT channel_id, message_id, version,
       coalesce((SELECT head.version FROM "{schema}".channel_heads AS head
                 WHERE head.channel_id = gone.channel_id), 0)
FROM gone
"""
