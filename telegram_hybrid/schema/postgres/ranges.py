"""Ranges of time: the partitions of messages that are native, and what makes them.

Time is cut into slots of one length from the epoch on. What is missing in a slot becomes a
partition; where a part of it is there already, of another length, only the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import attrs
from sqlalchemy import Connection, text

from telegram_hybrid.schema.postgres import timescale
from telegram_hybrid.schema.postgres.sql import sql

DAY = 86_400.0
#: Seconds of one partition or chunk, unless told otherwise.
INTERVAL = 7 * DAY
#: How many slots are made ahead of time, the present one among them.
AHEAD = 3


def slot(at: datetime, seconds: float) -> int:
    """The number of the slot in which a time (aware) is; negative before 1970."""
    return int(at.timestamp() // seconds)


def ensure_ranges(connection: Connection, schema: str, slots: Iterable[int], seconds: float) -> int:
    """Make what is missing of these slots; return how many partitions that were."""
    statement = sql(_ENSURE, schema)
    return sum(
        connection.execute(
            statement, {"first": number * seconds, "next": (number + 1) * seconds}
        ).scalar_one()
        for number in slots
    )


def ahead(connection: Connection, schema: str, seconds: float) -> int:
    """Make the partitions of the near future; return how many were missing."""
    now = slot(datetime.now(UTC), seconds)
    return ensure_ranges(connection, schema, range(now, now + AHEAD), seconds)


def known(connection: Connection, schema: str) -> bool:
    """Whether the schema has the revision that knows ranges."""
    found = connection.execute(text(_KNOWN), {"name": f'"{schema}".ensure_message_range'})
    return bool(found.scalar_one())


@attrs.frozen(slots=True)
class Part:
    """A partition or chunk: its name, quoted, and from when (included) to when it goes."""

    name: str
    lower: datetime
    upper: datetime


def parts(connection: Connection, schema: str) -> list[Part]:
    """Return all there are, by time; one without bounds goes from or to the end of time."""
    hypertable = timescale.storage(connection, schema).hypertable
    rows = connection.execute(sql(_CHUNKS if hypertable else _PARTITIONS, schema))
    return [Part(name, lower.astimezone(UTC), upper.astimezone(UTC)) for name, lower, upper in rows]


def oldest_time(connection: Connection, schema: str) -> datetime:
    """Return where the oldest part begins; before it, nothing is stored."""
    return min((part.lower for part in parts(connection, schema)), default=datetime.now(UTC))


_CHUNKS = """
SELECT format('%I.%I', chunk_schema, chunk_name), range_start, range_end
FROM timescaledb_information.chunks
WHERE hypertable_schema = '{schema}' AND hypertable_name = 'messages'
ORDER BY range_start
"""

_PARTITIONS = r"""
SELECT name,
       coalesce(CAST(substring(bound FROM 'FROM \(''([^'']+)''\)') AS timestamptz),
                '0001-01-02 00:00:00+00') AS lower,
       coalesce(CAST(substring(bound FROM 'TO \(''([^'']+)''\)') AS timestamptz),
                '9999-12-30 00:00:00+00')
FROM (SELECT format('%I.%I', nspname, relname) AS name,
             pg_get_expr(class.relpartbound, class.oid) AS bound
      FROM pg_inherits
      JOIN pg_class AS class ON class.oid = inhrelid
      JOIN pg_namespace AS namespace ON namespace.oid = relnamespace
      WHERE inhparent = CAST('"{schema}".messages' AS regclass)) AS found
ORDER BY lower
"""

_KNOWN = "SELECT to_regproc(:name) IS NOT NULL"

_ENSURE = """
SELECT "{schema}".ensure_message_range(to_timestamp(:first), to_timestamp(:next))
"""
