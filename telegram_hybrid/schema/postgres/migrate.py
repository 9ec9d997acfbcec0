"""Applying revisions: up, down and status, safe to run from several processes at once."""

from __future__ import annotations

import logging
from functools import partial

import attrs
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from telegram_hybrid.schema.postgres import ranges, timescale
from telegram_hybrid.schema.postgres.ranges import INTERVAL
from telegram_hybrid.schema.postgres.tables import DEFAULT_SCHEMA

_log = logging.getLogger(__name__)
_said: set[str] = set()


@attrs.frozen(slots=True)
class MigrationStatus:
    """`current` is the database's revision (None: nothing applied), `head` this library's.

    `storage` says how messages are stored, and why not in hypertables of TimescaleDB.
    """

    current: str | None
    head: str
    storage: str = ""

    @property
    def is_current(self) -> bool:
        """Whether the database has just what this library expects."""
        return self.current == self.head


def upgrade(
    connection: Connection,
    *,
    schema: str = DEFAULT_SCHEMA,
    to: str = "head",
    interval: float = INTERVAL,
    timescaledb: bool = True,
) -> MigrationStatus:
    """Apply all revisions up to `to` in one transaction; none where they are applied already.

    A failing revision leaves the previous state. Processes that migrate at the same time wait
    for each other on an advisory lock. The first revision stores messages in a hypertable where
    TimescaleDB can be had, and is wanted; that is not changed later. `interval` is how many
    seconds a chunk or partition holds that is made from now on.
    """
    config = _config(connection, schema)
    config.attributes["settle"] = partial(_settle, schema=schema, interval=interval)
    config.attributes["timescaledb"] = timescaledb
    command.upgrade(config, to)
    found = status(connection, schema=schema)
    if found.storage not in _said:
        _said.add(found.storage)
        _log.info("schema %s: %s", schema, found.storage)
    return found


def downgrade(connection: Connection, *, schema: str = DEFAULT_SCHEMA, to: str) -> MigrationStatus:
    """Go back to revision `to`, or to nothing with "base", in one transaction."""
    command.downgrade(_config(connection, schema), to)
    return status(connection, schema=schema)


def status(connection: Connection, *, schema: str = DEFAULT_SCHEMA) -> MigrationStatus:
    """Compare the database's revision with this library's."""
    context = MigrationContext.configure(connection, opts={"version_table_schema": schema})
    head = ScriptDirectory.from_config(_config(connection, schema)).get_current_head()
    storage = timescale.storage(connection, schema).words
    return MigrationStatus(context.get_current_revision(), head or "", storage)


def _settle(connection: Connection, schema: str, interval: float) -> None:
    """What follows the revisions in their transaction: the future gets its place."""
    if ranges.known(connection, schema):
        timescale.set_interval(connection, schema, interval)
        ranges.ahead(connection, schema, interval)


def _nothing(_: Connection) -> None:
    pass


def _config(connection: Connection, schema: str) -> Config:
    config = Config()
    config.set_main_option("script_location", "telegram_hybrid.schema.postgres:migrations")
    config.attributes["connection"] = connection
    config.attributes["schema"] = schema
    config.attributes["settle"] = _nothing
    return config
