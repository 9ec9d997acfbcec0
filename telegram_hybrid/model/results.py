"""Results: what the repositories answer to a write."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import attrs

from telegram_hybrid.model.message import MessageKey


class Outcome(StrEnum):
    """What saving did. A duplicate changed nothing and caused no event."""

    INSERTED = "inserted"
    EDITED = "edited"
    DUPLICATE = "duplicate"


@attrs.frozen(slots=True)
class Saved:
    """The outcome for one message and the version of its row afterwards."""

    key: MessageKey
    outcome: Outcome
    version: int


@attrs.frozen(slots=True)
class SaveCounts:
    """How many messages of a stream were inserted, edited and already there."""

    inserted: int = 0
    edited: int = 0
    duplicates: int = 0

    @property
    def total(self) -> int:
        """How many messages were taken from the stream."""
        return self.inserted + self.edited + self.duplicates

    def __add__(self, other: SaveCounts) -> SaveCounts:
        return SaveCounts(
            self.inserted + other.inserted,
            self.edited + other.edited,
            self.duplicates + other.duplicates,
        )

    @classmethod
    def of(cls, saved: list[Saved]) -> SaveCounts:
        """Count the outcomes of one batch."""
        outcomes = [item.outcome for item in saved]
        return cls(
            outcomes.count(Outcome.INSERTED),
            outcomes.count(Outcome.EDITED),
            outcomes.count(Outcome.DUPLICATE),
        )


class RevisionReason(StrEnum):
    """Why a content was kept as a revision."""

    EDIT = "edit"
    LATE_EDIT = "late_edit"
    LEGACY_MERGE = "legacy_merge"


@attrs.frozen(slots=True, kw_only=True)
class Revision:
    """An earlier content of a message: what an edit replaced, or an old edit that came late.

    `edited_at` is when Telegram says that this content was written (None: it is the first one);
    `recorded_at` when we put it aside: the time of the edit that replaced it, or of its own late
    arrival. `reason` is None for what was put aside before reasons were kept. Both times are UTC.
    """

    text: str
    caption: str | None
    edited_at: datetime | None
    version: int
    recorded_at: datetime
    reason: RevisionReason | None = None
