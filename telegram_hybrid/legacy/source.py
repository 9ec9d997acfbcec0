"""The original's database, read in one snapshot and never written to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
from sqlalchemy import Connection, Engine

from telegram_hybrid.connect import postgres
from telegram_hybrid.errors import ConfigurationError, InvalidInput
from telegram_hybrid.legacy.rows import REQUIRED, TIMES, TYPES, LegacyRow, legacy_row
from telegram_hybrid.model import Channel, checks
from telegram_hybrid.schema.postgres.sql import sql
from telegram_hybrid.settings import Settings

#: Rows that are fetched at once.
_STEP = 2_000

_TABLES = """
SELECT table_class.relname, namespace.nspname
FROM pg_class AS table_class JOIN pg_namespace AS namespace ON namespace.oid = relnamespace
WHERE relkind IN ('r', 'p', 'v', 'f') AND relname IN ('messages', 'channels', 'message_keys')
  AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'
"""

_COLUMNS = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped
"""

_SPELLINGS = """
SELECT CAST(channel_id AS text) AS spelling, count(*) AS rows,
       count(*) FILTER (WHERE message_id >= 0 AND message_id < :bound) AS usable
FROM "{schema}".messages GROUP BY channel_id ORDER BY 1
"""

_CHANNELS = """
SELECT channel_id, {columns} FROM "{schema}".channels ORDER BY channel_id
"""

# By the index of the original's own unique key; copies of one message are put in order by us.
_ROWS = """
SELECT {columns} FROM "{schema}".messages
WHERE channel_id = ANY(CAST(:spellings AS {type}[]))
  AND message_id > :after AND message_id < :bound
ORDER BY message_id
"""


@attrs.frozen(slots=True)
class Spelling:
    """A text that names a channel: its rows, and those of them with an id that can be one."""

    text: str | None
    rows: int
    usable: int


class Source:
    """What is in `schema` of one database, as it was when the snapshot was taken.

    `name` tells it apart from others: host, port, database and schema, without a password.
    """

    def __init__(self, connection: Connection, schema: str, name: str) -> None:
        self._connection = connection
        self._schema = schema
        self.name = name
        self._types: dict[str, str] = {}

    def inspect(self) -> list[str]:
        """Return what is wrong with the tables, a line each; nothing else may be asked before."""
        schemas = {(table, schema) for table, schema in self._ask(_TABLES)}
        if ("messages", self._schema) not in schemas:
            others = sorted(of for name, of in schemas if name == "messages")
            hint = f"; schemas that have one: {', '.join(others)}" if others else ""
            return [f"no table messages in schema {self._schema} of {self.name}{hint}"]
        if ("message_keys", self._schema) in schemas:
            return [
                f"schema {self._schema} of {self.name} is one of this library, not the "
                "original's: name the original's (--from-schema)"
            ]
        self._types = dict(self._ask(_COLUMNS, table=f'"{self._schema}".messages'))
        problems = [
            f"messages has no column {name}" for name in REQUIRED if name not in self._types
        ]
        for name, types in TYPES.items():
            found = self._types.get(name)
            if found is not None and found not in types:
                problems.append(f"messages.{name} is {found}, expected {types[0]}")
        ((encoding,),) = self._ask("SELECT current_setting('server_encoding')")
        if encoding == "SQL_ASCII":
            problems.append("the database's encoding is SQL_ASCII: nobody knows what its bytes say")
        return problems

    @property
    def missing(self) -> tuple[str, ...]:
        """Columns that are not there and count as NULL."""
        return tuple(name for name in TYPES if name not in self._types)

    def spellings(self) -> list[Spelling]:
        """Return the texts that name channels in messages; reads the whole table once."""
        return [Spelling(*row) for row in self._ask(_SPELLINGS, bound=checks.MAX_ID)]

    def channels(self) -> Iterator[tuple[Channel | None, str]]:
        """Yield the registered channels; None and what is wrong with it for one that is none."""
        columns = dict(self._ask(_COLUMNS, table=self._registry)) if self._registry else {}
        if "channel_id" not in columns:
            return
        wanted = ("label", "description", "is_active", "created_at", "updated_at")
        named = ", ".join(
            name if name in columns else f"CAST(NULL AS text) AS {name}" for name in wanted
        )
        for row in self._ask(_CHANNELS.replace("{columns}", named)):
            fields = dict(zip(("channel_id", *wanted), row, strict=True))
            if fields["is_active"] is None:
                fields["is_active"] = True
            try:
                yield Channel(**fields), ""
            except InvalidInput as error:
                yield None, f"channels: {row[0]}: {error}"

    def rows(self, spellings: Sequence[str], after: int) -> Iterator[LegacyRow]:
        """Yield the rows of a channel above a message id, by message id, in bounded memory."""
        columns = ", ".join(map(self._column, _FIELDS))
        statement = _ROWS.replace("{columns}", columns).replace("{type}", self._types["channel_id"])
        values = {"spellings": list(spellings), "after": after, "bound": checks.MAX_ID}
        with self._connection.execute(
            sql(statement, self._schema),
            values,
            execution_options={"stream_results": True, "yield_per": _STEP},
        ) as found:
            for row in found:
                yield legacy_row(row)

    def digest(self, statement: str, **values: Any) -> tuple[Any, ...]:
        """Answer a question about messages, whose columns it names as "{name}"."""
        for name in TYPES:
            statement = statement.replace(f"{{{name}}}", self._value(name))
        statement = statement.replace("{type}", self._types["channel_id"])
        (row,) = self._ask(statement, **values)
        return tuple(row)

    @property
    def _registry(self) -> str | None:
        found = {(table, schema) for table, schema in self._ask(_TABLES)}
        return f'"{self._schema}".channels' if ("channels", self._schema) in found else None

    def _column(self, name: str) -> str:
        return f"{self._value(name)} AS {name}"

    def _value(self, name: str) -> str:
        """Return an expression for a column, of one type whatever the column's own is."""
        if name == "is_dated":
            return "telegram_date IS NOT NULL" if "telegram_date" in self._types else "false"
        if name not in self._types:
            return "CAST('' AS text)" if name == "id" else f"CAST(NULL AS {_PLAIN[name]})"
        if name in TIMES:
            # Infinity among others: no datetime of Python's could hold it.
            return (
                f"CASE WHEN {name} >= '1970-01-01 00:00Z' AND {name} < '2100-01-01 00:00Z' "
                f"THEN {name} END"
            )
        return f"CAST({name} AS {_PLAIN[name]})"

    def _ask(self, statement: str, **values: Any) -> list[Any]:
        return list(self._connection.execute(sql(statement, self._schema), values).all())


_FIELDS = tuple(field.name for field in attrs.fields(LegacyRow))
# JSON is read by us: what we cannot take in is refused with its row, and stops no other one.
_AS = {"uuid": "text", "jsonb": "text", "timestamp with time zone": "timestamptz"}
_PLAIN = {name: _AS.get(types[0], types[0]) for name, types in TYPES.items()}


@contextmanager
def open_source(url: str, schema: str) -> Iterator[Source]:
    """Open the original's `schema` in one read-only snapshot of its database.

    Raises `InvalidInput` for a URL or a schema that is none, and errors of the database.
    """
    engine = _engine(url, schema)
    try:
        with postgres.translated_errors(engine), postgres.connected(engine) as connection:
            snapshot = connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            with snapshot.begin():
                yield Source(snapshot, schema, f"{postgres.address(engine.url)}#{schema}")
    finally:
        engine.dispose()


def _engine(url: str, schema: str) -> Engine:
    try:
        Settings(database_url=url, database_schema=schema)
        # A database of no encoding would have us read bytes, before we can refuse it.
        named = f"{url}{'&' if '?' in url else '?'}client_encoding=utf8"
        settings = Settings(database_url=named, database_schema=schema)
        return postgres.open_engine(
            settings, pooled=False, direct=True, application_name="telegram_hybrid legacy"
        )
    except ConfigurationError as error:
        field = "from_schema" if "database_schema" in str(error) else "source"
        problem = str(error).partition(": ")[2]
    raise InvalidInput(field, problem)
