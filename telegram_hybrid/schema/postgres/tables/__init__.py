"""The tables as SQLAlchemy Core: what all migrations together must add up to.

`migrations/versions` builds the same thing step by step; a test compares the two catalogs.
"""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import BigInteger, MetaData, Sequence

from telegram_hybrid.schema.postgres.tables import (
    changes,
    delivery,
    legacy,
    life,
    messages,
    registry,
    search,
    statistics,
)
from telegram_hybrid.schema.postgres.tables.shards import SHARDS, shard_of

__all__ = ["DEFAULT_SCHEMA", "SHARDS", "metadata", "shard_of"]

DEFAULT_SCHEMA = "telegram_gateway"


@lru_cache(maxsize=64)
def metadata(schema: str = DEFAULT_SCHEMA) -> MetaData:
    """All tables, in `schema`."""
    tables = MetaData(schema=schema)
    # Row versions: drawn while the channel's lock is held, so a later change has a higher one.
    Sequence("message_version", metadata=tables, data_type=BigInteger)
    messages.channels(tables)
    registry.channel_migrations(tables)
    messages.message_keys(tables)
    messages.message_confirmations(tables)
    messages.messages(tables)
    search.messages_search(tables)
    messages.message_revisions(tables)
    messages.channel_heads(tables)
    messages.owed_invalidations(tables)
    life.status_transitions(tables)
    statistics.message_rollups(tables)
    changes.message_changes(tables)
    life.message_claims(tables)
    delivery.outbox(tables)
    delivery.relays(tables)
    delivery.inbox(tables)
    delivery.dead_letters(tables)
    legacy.legacy_batches(tables)
    legacy.legacy_channels(tables)
    return tables
