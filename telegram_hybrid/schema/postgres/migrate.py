"""Applying revisions: up, down and status, safe to run from several processes at once."""

from __future__ import annotations

import attrs
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from telegram_hybrid.schema.postgres.tables import DEFAULT_SCHEMA


@attrs.frozen(slots=True)
class MigrationStatus:
    """`current` is the database's revision (None: nothing applied), `head` this library's."""

    current: str | None
    head: str

    @property
    def is_current(self) -> bool:
        """Whether the database has just what this library expects."""
        return self.current == self.head


def upgrade(
    connection: Connection, *, schema: str = DEFAULT_SCHEMA, to: str = "head"
) -> MigrationStatus:
    """Apply all revisions up to `to` in one transaction; none where they are applied already.

    A failing revision leaves the previous state. Processes that migrate at the same time wait
    for each other on an advisory lock.
    """
    command.upgrade(_config(connection, schema), to)
    return status(connection, schema=schema)


def downgrade(connection: Connection, *, schema: str = DEFAULT_SCHEMA, to: str) -> MigrationStatus:
    """Go back to revision `to`, or to nothing with "base", in one transaction."""
    command.downgrade(_config(connection, schema), to)
    return status(connection, schema=schema)


def status(connection: Connection, *, schema: str = DEFAULT_SCHEMA) -> MigrationStatus:
    """Compare the database's revision with this library's."""
    context = MigrationContext.configure(connection, opts={"version_table_schema": schema})
    head = ScriptDirectory.from_config(_config(connection, schema)).get_current_head()
    return MigrationStatus(context.get_current_revision(), head or "")


def _config(connection: Connection, schema: str) -> Config:
    config = Config()
    config.set_main_option("script_location", "telegram_hybrid.schema.postgres:migrations")
    config.attributes["connection"] = connection
    config.attributes["schema"] = schema
    return config
