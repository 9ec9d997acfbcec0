"""The index of messages by any three characters: wished for, because every save pays for it."""

from __future__ import annotations

from sqlalchemy import Connection

from telegram_hybrid.errors import ConfigurationError
from telegram_hybrid.schema.postgres.sql import sql

_AVAILABLE = "SELECT FROM pg_available_extensions WHERE name = 'pg_trgm'"

# Never in our schema: who drops that would take the indexes of others along.
_EXTENSION = "CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public"

_EXTENSION_SCHEMA = """
SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
WHERE extname = 'pg_trgm'
"""

# Cells of time and the channel beside the trigrams, as beside the words in `messages_search`.
_INDEX = """
CREATE INDEX IF NOT EXISTS messages_search_substrings ON "{schema}".messages USING gin (
    "{schema}".search_keys(sent_at, channel_id),
    (text || coalesce(E'\\n' || caption, '')) "{extension}".gin_trgm_ops
) WITH (gin_pending_list_limit = 1024)
"""

_DROP = 'DROP INDEX IF EXISTS "{schema}".messages_search_substrings'


def index(connection: Connection, schema: str, *, wanted: bool) -> None:
    """Make or drop the index, in one transaction; what is so already is left alone.

    Writers of messages wait while it is made. Raises `ConfigurationError` where PostgreSQL has no
    pg_trgm to make it with.
    """
    if not wanted:
        connection.execute(sql(_DROP, schema))
        return
    found = connection.execute(sql(_EXTENSION_SCHEMA, schema)).scalar()
    if found is None:
        if connection.execute(sql(_AVAILABLE, schema)).first() is None:
            raise ConfigurationError(
                "this PostgreSQL has no pg_trgm (often in a package postgresql-contrib): "
                "substrings are found without an index, only slower"
            )
        connection.execute(sql(_EXTENSION, schema))
        found = connection.execute(sql(_EXTENSION_SCHEMA, schema)).scalar_one()
    connection.execute(sql(_INDEX.replace("{extension}", found), schema))
