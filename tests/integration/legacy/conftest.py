"""The original system's database beside the store, in a schema of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import originals
import psycopg
import pytest
from servers.kinds import pytest_generate_tests, telegram_servers

from telegram_hybrid import Hybrid, Settings

__all__ = ["pytest_generate_tests", "telegram_servers"]


@attrs.frozen
class Original:
    """The original's tables in `schema`, on a connection that sees what is committed."""

    url: str
    schema: str
    connection: psycopg.Connection[Any]

    def ask(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement; "{old}" in it is the schema."""
        cursor = self.connection.execute(question.replace("{old}", self.schema), values)
        return cursor.fetchall() if cursor.description else []

    def one(self, question: str, *values: Any) -> Any:
        return self.ask(question, *values)[0][0]

    def insert(self, **fields: Any) -> None:
        """Store one row, with what it must have."""
        fields = {
            "channel_id": str(originals.CHANNELS[0]),
            "message_id": 1,
            "text": "BUY",
            "received_at": "2024-03-01 12:00Z",
        } | fields
        names = ", ".join(fields)
        places = ", ".join(["%s"] * len(fields))
        self.ask(f"INSERT INTO {{old}}.messages ({names}) VALUES ({places})", *fields.values())


@pytest.fixture
def original(telegram_settings: Settings) -> Iterator[Original]:
    """The original's tables, empty, in the database of the store."""
    url, schema = telegram_settings.database_url, f"{telegram_settings.database_schema}_old"
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("SELECT FROM pg_extension WHERE extname = 'timescaledb'")
        originals.build(connection, schema, hypertable=found.fetchone() is not None)
        yield Original(url, schema, connection)
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


TABLES = (
    "channels",
    "message_keys",
    "messages",
    "message_revisions",
    "message_statistics_hourly",
    "outbox",
)

Dump = Callable[[], dict[str, list[str]]]


@pytest.fixture
def dump(hybrid: Hybrid) -> Dump:
    """All that the store holds of channels, messages and events, row by row."""

    def read() -> dict[str, list[str]]:
        with psycopg.connect(hybrid.settings.database_url) as connection:
            return {
                name: [
                    row
                    for (row,) in connection.execute(
                        f"SELECT t::text FROM {hybrid.settings.database_schema}.{name} AS t "
                        "ORDER BY 1"
                    )
                ]
                for name in TABLES
            }

    return read
