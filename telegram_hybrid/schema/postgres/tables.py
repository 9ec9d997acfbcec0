"""The tables as SQLAlchemy Core: what all migrations together must add up to.

`migrations/versions` builds the same thing step by step; a test compares the two catalogs.
"""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Sequence,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from telegram_hybrid.model import Status

DEFAULT_SCHEMA = "telegram_gateway"
#: Into how many parts the outbox is split for relays to share; fixed, because rows carry it.
SHARDS = 16

_TIME = DateTime(timezone=True)
_STATUSES = ", ".join(f"'{status}'" for status in Status)


def shard_of(channel_id: int) -> int:
    """The outbox shard of a channel, 0 to SHARDS - 1: events of one channel stay together."""
    return channel_id % SHARDS


@lru_cache(maxsize=64)
def metadata(schema: str = DEFAULT_SCHEMA) -> MetaData:
    """All tables, in `schema`."""
    tables = MetaData(schema=schema)
    # Row versions: drawn while the channel's lock is held, so a later change has a higher one.
    Sequence("message_version", metadata=tables, data_type=BigInteger)
    _channels(tables)
    _message_keys(tables)
    _messages(tables)
    _message_revisions(tables)
    _channel_heads(tables)
    _owed_invalidations(tables)
    _outbox(tables)
    _relays(tables)
    _inbox(tables)
    _dead_letters(tables)
    return tables


def _channels(tables: MetaData) -> None:
    Table(
        "channels",
        tables,
        Column("channel_id", BigInteger, autoincrement=False),
        Column("title", Text),
        Column("username", Text),
        Column("label", Text),
        Column("description", Text),
        Column("is_active", Boolean, nullable=False, server_default=text("true")),
        Column("created_at", _TIME, nullable=False, server_default=func.now()),
        Column("updated_at", _TIME, nullable=False, server_default=func.now()),
        PrimaryKeyConstraint("channel_id", name="channels_pkey"),
    )


def _message_keys(tables: MetaData) -> None:
    # The real uniqueness (P1): a partitioned table can only be unique including its time.
    Table(
        "message_keys",
        tables,
        Column("channel_id", BigInteger, nullable=False),
        Column("message_id", BigInteger, nullable=False),
        Column("sent_at", _TIME, nullable=False),
        PrimaryKeyConstraint(
            "channel_id", "message_id", name="message_keys_pkey", postgresql_include=["sent_at"]
        ),
    )


def _messages(tables: MetaData) -> None:
    Table(
        "messages",
        tables,
        Column("channel_id", BigInteger, nullable=False),
        Column("message_id", BigInteger, nullable=False),
        Column("sent_at", _TIME, nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("source", Text, nullable=False),
        Column("message_type", Text, nullable=False),
        Column("text", Text, nullable=False),
        Column("caption", Text),
        Column("entities", JSONB, nullable=False),
        Column("edited_at", _TIME),
        Column("sender_id", BigInteger),
        Column("sender_name", Text),
        Column("reply_to_id", BigInteger),
        Column("thread_id", BigInteger),
        Column("grouped_id", BigInteger),
        Column("media_type", Text),
        Column("media", JSONB, nullable=False),
        Column("metadata", JSONB, nullable=False),
        Column("status", Text, nullable=False),
        Column("received_at", _TIME, nullable=False, server_default=func.now()),
        Column("updated_at", _TIME, nullable=False, server_default=func.now()),
        Column("queued_at", _TIME),
        Column("published_at", _TIME),
        Column("failed_at", _TIME),
        Column("reprocess_requested_at", _TIME),
        Column("reprocessed_at", _TIME),
        Column("deleted_at", _TIME),
        Column("delete_reason", Text),
        PrimaryKeyConstraint("channel_id", "message_id", "sent_at", name="messages_pkey"),
        CheckConstraint(f"status IN ({_STATUSES})", name="messages_status_known"),
        # A status of "deleted" without a time of deletion, or the reverse, cannot be written.
        CheckConstraint(
            "(status = 'deleted') = (deleted_at IS NOT NULL)", name="messages_deleted_whole"
        ),
        postgresql_partition_by="RANGE (sent_at)",
    )


def _message_revisions(tables: MetaData) -> None:
    Table(
        "message_revisions",
        tables,
        Column("channel_id", BigInteger, nullable=False),
        Column("message_id", BigInteger, nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("text", Text, nullable=False),
        Column("caption", Text),
        Column("edited_at", _TIME),
        Column("recorded_at", _TIME, nullable=False, server_default=func.now()),
        PrimaryKeyConstraint("channel_id", "message_id", "version", name="message_revisions_pkey"),
        ForeignKeyConstraint(
            ["channel_id", "message_id"],
            [
                f"{tables.schema}.message_keys.channel_id",
                f"{tables.schema}.message_keys.message_id",
            ],
            name="message_revisions_key_fkey",
            ondelete="CASCADE",
        ),
    )


def _channel_heads(tables: MetaData) -> None:
    # A hot row per channel, apart from `channels`, which people update.
    Table(
        "channel_heads",
        tables,
        Column("channel_id", BigInteger, autoincrement=False),
        Column("version", BigInteger, nullable=False),
        Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        PrimaryKeyConstraint("channel_id", name="channel_heads_pkey"),
        postgresql_with={
            "fillfactor": "50",
            "autovacuum_vacuum_scale_factor": "0",
            "autovacuum_vacuum_threshold": "2000",
        },
    )


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


def _owed_invalidations(tables: MetaData) -> None:
    Table(
        "owed_invalidations",
        tables,
        Column("channel_id", BigInteger, autoincrement=False),
        Column("owed_at", _TIME, nullable=False),
        PrimaryKeyConstraint("channel_id", name="owed_invalidations_pkey"),
    )


def _outbox(tables: MetaData) -> None:
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


def _relays(tables: MetaData) -> None:
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


def _inbox(tables: MetaData) -> None:
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


def _dead_letters(tables: MetaData) -> None:
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
