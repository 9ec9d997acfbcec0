"""The tables beside `channels`: what is known of how chats follow on each other."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    func,
)


def channel_migrations(tables: MetaData) -> None:
    """Add `channel_migrations`."""
    Table(
        "channel_migrations",
        tables,
        Column("old_channel_id", BigInteger, autoincrement=False),
        Column("new_channel_id", BigInteger, nullable=False),
        # When Telegram says it happened; NULL: it did not say.
        Column("migrated_at", DateTime(timezone=True)),
        Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        PrimaryKeyConstraint("old_channel_id", name="channel_migrations_pkey"),
        UniqueConstraint("new_channel_id", name="channel_migrations_new_key"),
        # A basic group becomes a supergroup, and a supergroup nothing: no chain, no circle.
        CheckConstraint(
            "old_channel_id > -1000000000000 AND old_channel_id < 0"
            " AND new_channel_id < -1000000000000",
            name="channel_migrations_kinds",
        ),
    )
