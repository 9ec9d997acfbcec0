"""Compression: old chunks of a hypertable are put into TimescaleDB's columnstore.

Everything goes on as before: reads find them, edits and marks of old messages change them, more
slowly, and have the next run compress the chunk again. Indexes of theirs are given up, but for what
the columnstore keeps: by channel, ordered by message id.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Engine, TextClause

from telegram_hybrid.connect.postgres import transaction
from telegram_hybrid.errors import DatabaseUnavailable, WriteConflict
from telegram_hybrid.schema.postgres import timescale
from telegram_hybrid.schema.postgres.sql import sql

#: Is told how many of how many chunks are done.
Progress = Callable[[int, int], object]


def compress(engine: Engine, schema: str, before: datetime, progress: Progress) -> int:
    """Compress the chunks in which everything was sent before then; return how many.

    Zero where messages are in no hypertable, or TimescaleDB's licence has no columnstore. A chunk
    that is held for long is left to the next run, and so are all of them where the table is, in
    the first run. `engine` reaches PostgreSQL itself.
    """
    with transaction(engine) as connection:
        found = timescale.storage(connection, schema)
        if not found.hypertable or not found.timescale.compresses:
            return 0
        values = {"schema": schema, "before": before}
        rows = connection.execute(sql(_RIPE, schema), values)
        ripe = list(rows.scalars())
        enabled = connection.execute(sql(_ENABLED, schema), values).scalar_one()
    if ripe and not enabled and not _done(engine, sql(_UNCOUNTED, schema), sql(_ENABLE, schema)):
        return 0
    done = 0
    progress(0, len(ripe))
    compress_chunk = sql(_COMPRESS.replace("{timescale}", found.timescale.schema or ""), "")
    for number, chunk in enumerate(ripe, start=1):
        done += _done(engine, compress_chunk.bindparams(chunk=chunk))
        progress(number, len(ripe))
    return done


def _done(engine: Engine, *statements: TextClause) -> bool:
    """Whether they got their locks; all reads and writes queue behind one that waits."""
    try:
        with transaction(engine) as connection:
            connection.execute(sql("SET LOCAL lock_timeout = '2s'", ""))
            for each in statements:
                connection.execute(each)
    except (DatabaseUnavailable, WriteConflict):
        return False
    return True


# Also those that were compressed and then written to (2 and 8), but none that is frozen (4).
_RIPE = """
SELECT format('%I.%I', chunk_schema, chunk_name)
FROM timescaledb_information.chunks AS chunk
JOIN _timescaledb_catalog.chunk AS status
    ON status.schema_name = chunk_schema AND status.table_name = chunk_name
WHERE hypertable_schema = :schema AND hypertable_name = 'messages' AND range_end <= :before
  AND (NOT is_compressed OR status.status & 10 <> 0) AND status.status & 4 = 0
ORDER BY range_start
"""

_ENABLED = """
SELECT compression_enabled FROM timescaledb_information.hypertables
WHERE hypertable_schema = :schema AND hypertable_name = 'messages'
"""

# TimescaleDB has no columnstore beside such a trigger (DELETE with a transition table). The library
# deletes no row of `messages`; statistics go on to count those that somebody deletes by hand.
_UNCOUNTED = 'DROP TRIGGER IF EXISTS count_deleted ON "{schema}".messages'

# The columns of the primary key, so that a row is found by it.
_ENABLE = """
ALTER TABLE "{schema}".messages SET (
    timescaledb.compress, timescaledb.compress_segmentby = 'channel_id',
    timescaledb.compress_orderby = 'message_id DESC, sent_at DESC')
"""

_COMPRESS = """
SELECT "{timescale}".compress_chunk(CAST(:chunk AS regclass), if_not_compressed => true)
"""
