"""Partitions and chunks: of the length that was asked for, around what is there already."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import attrs
import pytest
from sqlalchemy import Connection, text

import telegram_hybrid as th
from telegram_hybrid import Hybrid, Outcome, Settings
from telegram_hybrid.schema.postgres import migrate, ranges, timescale
from telegram_hybrid.testing import make_message

pytestmark = pytest.mark.integration
DAY = timedelta(days=1)
START = datetime(2024, 2, 1, tzinfo=UTC)

_NATIVE = """
SELECT substring(bound FROM 'FROM \\(''([^'']+)''')::timestamptz,
       substring(bound FROM 'TO \\(''([^'']+)''')::timestamptz
FROM (SELECT pg_get_expr(relpartbound, oid) AS bound FROM pg_class
      WHERE oid IN (SELECT inhrelid FROM pg_inherits
                    WHERE inhparent = CAST(:table AS regclass))) AS parts ORDER BY 1
"""
_CHUNKS = """
SELECT range_start, range_end FROM timescaledb_information.chunks
WHERE hypertable_schema || '.' || hypertable_name = :table ORDER BY 1
"""


def parts(hybrid: Hybrid) -> list[tuple[datetime, datetime]]:
    """From when to when each partition or chunk goes."""
    with hybrid.engine.connect() as connection:
        schema = hybrid.settings.database_schema
        found = timescale.storage(connection, schema)
        rows = connection.execute(
            text(_CHUNKS if found.hypertable else _NATIVE), {"table": f"{schema}.messages"}
        )
        return [(row[0].astimezone(UTC), row[1].astimezone(UTC)) for row in rows]


def month(connection: Connection, schema: str, at: datetime) -> None:
    """What the library before ranges says before it stores a message."""
    statement = f"SELECT {schema}.ensure_message_partition(:at)"
    connection.execute(text(statement), {"at": at})


def save(hybrid: Hybrid, *instants: datetime) -> None:
    for at in instants:
        assert hybrid.messages.save(make_message(sent_at=at)).outcome is Outcome.INSERTED


@pytest.fixture
def daily(hybrid: Hybrid) -> Any:
    """The same store, by a process with partitions of a day."""
    settings = attrs.evolve(hybrid.settings, partition_interval=ranges.DAY)
    with th.connect(settings) as daily:
        yield daily


def test_new_ones_have_the_length_of_the_setting(hybrid: Hybrid, daily: Hybrid) -> None:
    save(hybrid, START)
    save(daily, START + 20 * DAY, START + 20 * DAY, START + 22 * DAY)
    old = [part for part in parts(hybrid) if part[0] < START + 30 * DAY]
    thursday = START  # weeks begin with that of the epoch
    assert thursday.weekday() == 3
    assert old == [
        (thursday, thursday + 7 * DAY),
        (START + 20 * DAY, START + 21 * DAY),
        (START + 22 * DAY, START + 23 * DAY),
    ]


def test_what_is_there_in_another_length_is_left_and_the_rest_is_filled(
    hybrid: Hybrid, daily: Hybrid
) -> None:
    # Broken on purpose: with the bounds of those that are there left out, PostgreSQL refused the
    # second save ("would overlap partition"), and TimescaleDB the second chunk ("collision").
    save(daily, START + 2 * DAY, START + 4 * DAY)
    save(hybrid, START, START + 3 * DAY, START + 6 * DAY, START + 2.5 * DAY)
    found = [part for part in parts(hybrid) if part[0] < START + 30 * DAY]
    cuts = (0, 2, 3, 4, 5, 7)
    assert found == [(START + low * DAY, START + high * DAY) for low, high in pairwise(cuts)]


def test_the_library_of_before_finds_its_whole_month(hybrid: Hybrid) -> None:
    # Broken on purpose: with the function of revision 0001 in place the month was refused.
    schema = hybrid.settings.database_schema
    save(hybrid, START + 8 * DAY)
    with hybrid.engine.begin() as connection:
        month(connection, schema, START + 15 * DAY)
    found = [part for part in parts(hybrid) if part[0] < START + 60 * DAY]
    assert found[0][0] == START
    assert found[-1][1] == START + 29 * DAY
    assert all(low[1] == high[0] for low, high in pairwise(found))


def test_the_schema_of_before_takes_messages_into_months_of_several_parts(hybrid: Hybrid) -> None:
    schema = hybrid.settings.database_schema
    save(hybrid, START + 8 * DAY)
    with hybrid.engine.connect() as connection:
        migrate.downgrade(connection, schema=schema, to="0017")
        connection.rollback()
        month(connection, schema, START)
        connection.execute(
            text(f"""
            INSERT INTO {schema}.messages (channel_id, message_id, sent_at, version, source,
                message_type, text, entities, media, metadata, status)
            VALUES (-1, 1, :at, 1, 'bot', 'channel_post', '', '[]', '[]', '{{}}', 'received')"""),
            {"at": START + 20 * DAY},
        )
        connection.commit()
    hybrid.migrate()
    assert hybrid.messages.save(make_message(sent_at=START)).outcome is Outcome.INSERTED


def test_the_near_future_is_made_ahead_of_time(hybrid: Hybrid) -> None:
    now = datetime.now(UTC)
    found = parts(hybrid)
    assert len(found) == ranges.AHEAD
    assert found[0][0] <= now < now + 14 * DAY - timedelta(seconds=5) < found[-1][1]


def test_a_schema_says_how_it_stores_messages_and_why(
    telegram_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    # What was made without TimescaleDB stays so where it is there.
    migrate._said.clear()
    with caplog.at_level("INFO", "telegram_hybrid"):
        with th.connect(attrs.evolve(telegram_settings, timescaledb=False)) as native:
            first = native.migrate().storage
        with th.connect(telegram_settings) as later:
            assert later.migrate().storage == first
            save(later, START)
            with later.engine.connect() as connection:
                found = timescale.storage(connection, telegram_settings.database_schema)
            later.destroy()
            again = later.migrate().storage
            later.destroy()
    assert found.hypertable is False
    assert first.startswith("messages are in native partitions: ")
    assert again == first if not found.timescale.usable else "a hypertable of" in again
    said = [record.getMessage() for record in caplog.records if first in record.getMessage()]
    assert len(said) == 1, "said once, and not by every process that looks"
