"""The table of rollups: messages counted by hour while they are written."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
)


def message_rollups(tables: MetaData) -> None:
    """Add `message_rollups`."""
    # Kept by triggers on `messages`, and only by whoever holds the channel's lock. Read by the
    # views `message_statistics_hourly` and `_daily`, which leave out the last two columns.
    Table(
        "message_rollups",
        tables,
        Column("channel_id", BigInteger, nullable=False),
        # The hour (UTC) of sent_at.
        Column("bucket", DateTime(timezone=True), nullable=False),
        Column("status", Text, nullable=False),
        Column("source", Text, nullable=False),
        Column("message_type", Text, nullable=False),
        # -1: not published; else n for a latency of 1.1^n milliseconds or more, below 1.1^(n+1).
        Column("latency_bin", SmallInteger, nullable=False),
        Column("messages", BigInteger, nullable=False),
        Column("latency_sum_us", BigInteger),
        Column("latency_min_us", BigInteger),
        Column("latency_max_us", BigInteger),
        # Every message of the row is between them: where to look when an extreme goes away.
        Column("lowest_id", BigInteger, nullable=False),
        Column("highest_id", BigInteger, nullable=False),
        PrimaryKeyConstraint(
            "channel_id",
            "bucket",
            "status",
            "source",
            "message_type",
            "latency_bin",
            name="message_rollups_pkey",
        ),
        # Of all channels together. Hours come about in their order, so that is small and cheap.
        Index("message_rollups_bucket", "bucket", postgresql_using="brin"),
        # One row is changed by many messages: room for its versions on its own page.
        postgresql_with={"fillfactor": "70"},
    )
