"""The tables of channels, messages and their versions."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from telegram_hybrid.model import RevisionReason, Status

_TIME = DateTime(timezone=True)
_STATUSES = ", ".join(f"'{status}'" for status in Status)
_REASONS = ", ".join(f"'{reason}'" for reason in RevisionReason)


def channels(tables: MetaData) -> None:
    """Add `channels`."""
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


def message_keys(tables: MetaData) -> None:
    """Add `message_keys`."""
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


def message_confirmations(tables: MetaData) -> None:
    """Add `message_confirmations`."""
    # Few have a row, and it is no change of the message: neither its row nor its key is touched.
    Table(
        "message_confirmations",
        tables,
        Column("channel_id", BigInteger, nullable=False),
        Column("message_id", BigInteger, nullable=False),
        Column("said_at", _TIME, nullable=False),
        PrimaryKeyConstraint("channel_id", "message_id", name="message_confirmations_pkey"),
        ForeignKeyConstraint(
            ["channel_id", "message_id"],
            [
                f"{tables.schema}.message_keys.channel_id",
                f"{tables.schema}.message_keys.message_id",
            ],
            name="message_confirmations_key_fkey",
            ondelete="CASCADE",
        ),
    )


def messages(tables: MetaData) -> None:
    """Add `messages`."""
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
        # What was said with the status; of a deleted message, with the one before.
        Column("status_reason", Text),
        # The status before the deletion, to which `restore` goes back; the trigger writes it.
        Column("deleted_from", Text),
        PrimaryKeyConstraint("channel_id", "message_id", "sent_at", name="messages_pkey"),
        CheckConstraint(f"status IN ({_STATUSES})", name="messages_status_known"),
        # A status of "deleted" without a time of deletion, or the reverse, cannot be written.
        CheckConstraint(
            "(status = 'deleted') = (deleted_at IS NOT NULL)", name="messages_deleted_whole"
        ),
        # For counts of what is known to be deleted.
        Index("messages_deleted", "channel_id", postgresql_where=text("deleted_at IS NOT NULL")),
        Index(
            "messages_metadata",
            "metadata",
            postgresql_using="gin",
            postgresql_ops={"metadata": "jsonb_path_ops"},
        ),
        # What waits to be worked on, oldest first in each channel (claim_messages, pending).
        Index(
            "messages_unprocessed",
            "channel_id",
            "sent_at",
            "message_id",
            postgresql_where=text("status IN ('received', 'retrying', 'reprocess_pending')"),
        ),
        postgresql_partition_by="RANGE (sent_at)",
    )


def message_revisions(tables: MetaData) -> None:
    """Add `message_revisions`."""
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
        # NULL: put aside by a library that did not say why.
        Column("reason", Text),
        PrimaryKeyConstraint("channel_id", "message_id", "version", name="message_revisions_pkey"),
        CheckConstraint(f"reason IN ({_REASONS})", name="message_revisions_reason_known"),
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


def channel_heads(tables: MetaData) -> None:
    """Add `channel_heads`."""
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


def owed_invalidations(tables: MetaData) -> None:
    """Add `owed_invalidations`."""
    Table(
        "owed_invalidations",
        tables,
        Column("channel_id", BigInteger, autoincrement=False),
        Column("owed_at", _TIME, nullable=False),
        PrimaryKeyConstraint("channel_id", name="owed_invalidations_pkey"),
    )
