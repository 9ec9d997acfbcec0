"""Ranges of time: the partitions of messages that are native, and what makes them.

Time is cut into slots of one length from the epoch on. What is missing in a slot becomes a
partition; where a part of it is there already, of another length, only the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import Connection, text

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


_KNOWN = "SELECT to_regproc(:name) IS NOT NULL"

_ENSURE = """
SELECT "{schema}".ensure_message_range(to_timestamp(:first), to_timestamp(:next))
"""
