"""The tables of the outbox, its relays, the inbox and dead letters."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from telegram_hybrid.schema.postgres.tables.shards import SHARDS

_TIME = DateTime(timezone=True)


def _event_columns() -> list[Column[object]]:
    return [
        Column("event_id", Uuid, nullable=False),
        Column("type", Text, nullable=False),
        Column("channel_id", BigInteger, nullable=False),
        # NULL: an event of somebody's own, on the topic `type`.
        Column("message_id", BigInteger),
        Column("payload", JSON, nullable=False),
        Column("traceparent", Text),
        Column("occurred_at", _TIME, nullable=False, server_default=func.now()),
        # Of the payload.
        Column("schema_version", Integer, nullable=False, server_default=text("1")),
        # What the broker said at each attempt, the last of them: [{"at": .., "reason": ..}, ..].
        Column("history", JSONB),
    ]


def outbox(tables: MetaData) -> None:
    """Add `outbox`."""
    Table(
        "outbox",
        tables,
        # Drawn under the channel's lock: within a channel, id order is commit order (P3).
        Column("id", BigInteger, Identity(always=False)),
        Column("shard", SmallInteger, nullable=False),
        *_event_columns(),
        Column("attempts", Integer, nullable=False, server_default=text("0")),
        Column("not_before", _TIME),
        Column("last_error", Text),
        PrimaryKeyConstraint("id", name="outbox_pkey"),
        CheckConstraint(f"shard >= 0 AND shard < {SHARDS}", name="outbox_shard_known"),
        Index("outbox_shard_id", "shard", "id"),
        # The few postponed rows: which channels are frozen is asked with every batch.
        Index("outbox_postponed", "not_before", postgresql_where=text("not_before IS NOT NULL")),
        # Every row is deleted soon: vacuum by number of rows, not by share of the table.
        postgresql_with={
            "autovacuum_vacuum_scale_factor": "0",
            "autovacuum_vacuum_threshold": "2000",
        },
    )


def relays(tables: MetaData) -> None:
    """Add `relay_shards` and `relays`."""
    Table(
        "relay_shards",
        tables,
        Column("shard", SmallInteger, autoincrement=False),
        Column("owner", Text),
        Column("epoch", BigInteger, nullable=False, server_default=text("0")),
        Column("expires_at", _TIME),
        # Nothing at or below this id waits in the shard.
        Column("floor", BigInteger, nullable=False, server_default=text("0")),
        PrimaryKeyConstraint("shard", name="relay_shards_pkey"),
        CheckConstraint("(owner IS NULL) = (expires_at IS NULL)", name="relay_shards_lease_whole"),
    )
    # The relays that live, also those without a shard: what a fair share is depends on them.
    Table(
        "relays",
        tables,
        Column("owner", Text),
        Column("expires_at", _TIME, nullable=False),
        PrimaryKeyConstraint("owner", name="relays_pkey"),
    )


def inbox(tables: MetaData) -> None:
    """Add `inbox`."""
    Table(
        "inbox",
        tables,
        Column("queue", Text, nullable=False),
        Column("event_id", Uuid, nullable=False),
        Column("channel_id", BigInteger, nullable=False),
        Column("message_id", BigInteger),
        Column("processed_at", _TIME, nullable=False, server_default=func.now()),
        PrimaryKeyConstraint("queue", "event_id", name="inbox_pkey"),
        # Old rows are forgotten in small batches, a share of a large table at a time.
        postgresql_with={
            "autovacuum_vacuum_scale_factor": "0",
            "autovacuum_vacuum_threshold": "20000",
        },
    )


def dead_letters(tables: MetaData) -> None:
    """Add `dead_letters`."""
    Table(
        "dead_letters",
        tables,
        Column("id", BigInteger, Identity(always=False)),
        # NULL: the relay could not publish it; otherwise the consumer's queue that gave it up.
        Column("queue", Text),
        *_event_columns(),
        Column("sequence", BigInteger, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("reason", Text, nullable=False),
        Column("failed_at", _TIME, nullable=False, server_default=func.now()),
        # Of one that was replayed or discarded: when, which, and what was said about it.
        Column("settled_at", _TIME),
        Column("outcome", Text),
        Column("note", Text),
        PrimaryKeyConstraint("id", name="dead_letters_pkey"),
        CheckConstraint(
            "(settled_at IS NULL) = (outcome IS NULL)"
            " AND (outcome IN ('replayed', 'discarded') OR outcome IS NULL)",
            name="dead_letters_settled_whole",
        ),
        Index("dead_letters_event_id", "event_id"),
        # In the order of a replay.
        Index(
            "dead_letters_open",
            "channel_id",
            "sequence",
            "id",
            postgresql_where=text("settled_at IS NULL"),
        ),
    )
