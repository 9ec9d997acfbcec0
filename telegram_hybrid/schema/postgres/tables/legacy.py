"""The tables that tell what was brought from the original system, for resuming and rolling back."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    DateTime,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    func,
)

_TIME = DateTime(timezone=True)


def legacy_batches(tables: MetaData) -> None:
    """Add `legacy_batches`."""
    Table(
        "legacy_batches",
        tables,
        Column("source", Text, nullable=False),
        Column("channel_id", BigInteger, nullable=False),
        # The batch holds the ids above the first up to the second.
        Column("after_id", BigInteger, nullable=False),
        Column("upto_id", BigInteger, nullable=False),
        Column("rows", BigInteger, nullable=False),
        Column("messages", Integer, nullable=False),
        Column("brought", Integer, nullable=False),
        Column("revisions", Integer, nullable=False),
        # Ids that were left out, because the store could not hold them.
        Column("refused", ARRAY(BigInteger), nullable=False),
        # Drawn under the channel's lock, so nobody else's: from the first for revisions of what
        # was stored before, from the second for what was brought.
        Column("first_version", BigInteger, nullable=False),
        Column("brought_version", BigInteger, nullable=False),
        Column("last_version", BigInteger, nullable=False),
        Column("brought_at", _TIME, nullable=False, server_default=func.now()),
        PrimaryKeyConstraint("source", "channel_id", "after_id", name="legacy_batches_pkey"),
    )


def legacy_channels(tables: MetaData) -> None:
    """Add `legacy_channels`."""
    Table(
        "legacy_channels",
        tables,
        Column("source", Text, nullable=False),
        Column("channel_id", BigInteger, nullable=False),
        # As it was brought: another one in `channels` tells that somebody has changed it.
        Column("updated_at", _TIME, nullable=False),
        PrimaryKeyConstraint("source", "channel_id", name="legacy_channels_pkey"),
    )
