"""TimescaleDB: what a database has of it, found out without trying, and how messages are stored.

`CREATE EXTENSION timescaledb` where the library is not preloaded ends the connection (FATAL), so
the server is asked first. Its settings stand in `pg_settings` only when its libraries registered
them: a line in postgresql.conf that nobody reads does not count, and every role may look.
"""

from __future__ import annotations

import attrs
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from telegram_hybrid.schema.postgres.sql import sql


@attrs.frozen(slots=True)
class Timescale:
    """What a database has of TimescaleDB.

    `available` and `installed` are versions: on the server's disk, and in this database. `schema`
    is where its functions are. `license` is "timescale" (Community) or "apache", and None unless
    the extension is installed and loaded.
    """

    available: str | None = None
    preloaded: bool = False
    installed: str | None = None
    schema: str | None = None
    license: str | None = None

    @property
    def usable(self) -> bool:
        """Whether hypertables can be made here."""
        return self.installed is not None and self.license is not None

    @property
    def compresses(self) -> bool:
        """Whether the licence has the columnstore, and jobs in the background."""
        return self.usable and self.license == "timescale"

    @property
    def lack(self) -> str | None:
        """Why there are no hypertables here, in words; None where there can be."""
        if self.usable:
            return None
        if self.installed is not None:
            return f"TimescaleDB {self.installed} is in this database, and its library not loaded"
        if self.available is None:
            return "TimescaleDB is not installed on this server"
        if not self.preloaded:
            return f"TimescaleDB {self.available} is not among shared_preload_libraries"
        return f"TimescaleDB {self.available} is not in this database: CREATE EXTENSION timescaledb"


@attrs.frozen(slots=True)
class Storage:
    """How messages are stored: `hypertable` is None before the first revision."""

    hypertable: bool | None
    timescale: Timescale

    @property
    def aggregates(self) -> bool:
        """Whether continuous aggregates count messages; elsewhere triggers do."""
        return bool(self.hypertable) and self.timescale.compresses

    @property
    def words(self) -> str:
        """What to tell people, in one line."""
        lack = self.timescale.lack
        if self.hypertable is None:
            return "no messages yet"
        if not self.hypertable:
            why = lack or "they were made without TimescaleDB, which is here now, and stay so"
            return f"messages are in native partitions: {why}"
        if lack:
            return f"messages are a hypertable, and cannot be used: {lack}"
        version = self.timescale.installed
        if self.timescale.compresses:
            return f"messages are a hypertable of TimescaleDB {version}"
        return (
            f"messages are a hypertable of TimescaleDB {version}, never compressed: "
            f"its licence is {self.timescale.license}"
        )


def look(connection: Connection) -> Timescale:
    """Ask what there is; changes nothing."""
    return Timescale(*connection.execute(text(_LOOK)).one())


def storage(connection: Connection, schema: str) -> Storage:
    """Ask how the messages of `schema` are stored."""
    found = look(connection)
    kind = connection.execute(text(_KIND), {"schema": schema}).scalar()
    return Storage(None if kind is None else kind == "r", found)


def set_interval(connection: Connection, schema: str, seconds: float) -> None:
    """Have chunks that are made from now on hold so much time; nothing to do without hypertable."""
    found = storage(connection, schema)
    if found.hypertable and found.timescale.usable:
        statement = _SET_INTERVAL.replace("{timescale}", found.timescale.schema or "")
        connection.execute(sql(statement, schema), {"seconds": seconds})


def install(connection: Connection) -> Timescale:
    """Put the extension into this database if that is possible, and return what there is then.

    Inside a transaction. A role that may not, and one that comes second, change nothing.
    """
    found = look(connection)
    if found.installed is None and found.available is not None and found.preloaded:
        try:
            with connection.begin_nested():
                # By name: the search path of a migration would put it into our schema.
                connection.execute(text("CREATE EXTENSION IF NOT EXISTS timescaledb SCHEMA public"))
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
        found = look(connection)
    return found


_LOOK = """
SELECT (SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'),
       EXISTS (SELECT FROM pg_settings WHERE name = 'timescaledb.max_background_workers'),
       extension.extversion,
       CAST(extension.extnamespace AS regnamespace)::text,
       (SELECT setting FROM pg_settings WHERE name = 'timescaledb.license')
FROM (SELECT) AS one LEFT JOIN pg_extension AS extension ON extname = 'timescaledb'
"""

# Only where it is another: to set it takes a lock.
_SET_INTERVAL = """
SELECT "{timescale}".set_chunk_time_interval('"{schema}".messages', wanted)
FROM make_interval(secs => :seconds) AS wanted
WHERE NOT EXISTS (
    SELECT FROM timescaledb_information.dimensions
    WHERE hypertable_schema = '{schema}' AND hypertable_name = 'messages'
      AND time_interval = wanted)
"""

# A hypertable is an ordinary table to PostgreSQL; without TimescaleDB, ours is partitioned.
_KIND = """
SELECT relkind::text FROM pg_class AS class
JOIN pg_namespace AS namespace ON namespace.oid = relnamespace
WHERE nspname = :schema AND relname = 'messages'
"""
