"""The tables of the life of messages: which status may follow which."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    func,
)

_TIME = DateTime(timezone=True)


def status_transitions(tables: MetaData) -> None:
    """Add `status_transitions`."""
    # The trigger on `messages` reads it; `repositories.decisions` has the same steps.
    Table(
        "status_transitions",
        tables,
        Column("status", Text, nullable=False),
        Column("next", Text, nullable=False),
        PrimaryKeyConstraint("status", "next", name="status_transitions_pkey"),
    )


def message_claims(tables: MetaData) -> None:
    """Add `message_claims`."""
    Table(
        "message_claims",
        tables,
        Column("channel_id", BigInteger, nullable=False),
        Column("message_id", BigInteger, nullable=False),
        # The fencing token, from message_version: a later claim has a higher one.
        Column("claim_id", BigInteger, nullable=False),
        Column("worker", Text, nullable=False),
        Column("claimed_at", _TIME, nullable=False, server_default=func.now()),
        Column("expires_at", _TIME, nullable=False),
        PrimaryKeyConstraint("channel_id", "message_id", name="message_claims_pkey"),
        Index("message_claims_expires_at", "expires_at"),
        # A row lives as long as the work takes.
        postgresql_with={
            "autovacuum_vacuum_scale_factor": "0",
            "autovacuum_vacuum_threshold": "2000",
        },
    )
