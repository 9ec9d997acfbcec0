"""The tables of the log of changes."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)


def message_changes(tables: MetaData) -> None:
    """Add `message_changes` and `message_change_floors`."""
    Table(
        "message_changes",
        tables,
        Column("channel_id", BigInteger, nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("message_id", BigInteger, nullable=False),
        Column("type", Text, nullable=False),
        # NULL: written for a library that does not say it.
        Column("status", Text),
        Column("changed_at", DateTime(timezone=True), nullable=False),
        # Within a channel, the order of the commits. No other index: every write pays for it.
        PrimaryKeyConstraint("channel_id", "version", name="message_changes_pkey"),
        # Old rows are forgotten in small batches, a share of a large table at a time.
        postgresql_with={
            "autovacuum_vacuum_scale_factor": "0",
            "autovacuum_vacuum_threshold": "20000",
        },
    )
    Table(
        "message_change_floors",
        tables,
        Column("channel_id", BigInteger, autoincrement=False),
        # The changes of the channel up to this one are forgotten.
        Column("version", BigInteger, nullable=False),
        PrimaryKeyConstraint("channel_id", name="message_change_floors_pkey"),
    )
