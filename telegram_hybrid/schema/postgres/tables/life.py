"""The tables of the life of messages: which status may follow which."""

from __future__ import annotations

from sqlalchemy import Column, MetaData, PrimaryKeyConstraint, Table, Text


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
