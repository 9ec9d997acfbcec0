"""What a migration found and did, as values."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

import attrs

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.legacy.merging import Merged

#: Refused rows that are shown with their place, of each reason.
EXAMPLES = 5


class OnError(StrEnum):
    """What to do when rows cannot be brought: bring nothing, or all others."""

    RAISE = "raise"
    SKIP = "skip"


@attrs.define(slots=True, kw_only=True)
class Found:
    """What a source holds; every row is counted once, in `merged` or in `refused`.

    `merged` rows made `messages`; `revisions` are their earlier contents. `notices` counts
    messages by what was supplied or taken for something else, `refused` rows by reason, with
    some of them in `examples`. `missing` are columns that count as NULL.
    """

    rows: int = 0
    merged: int = 0
    messages: int = 0
    revisions: int = 0
    deleted: int = 0
    channels: int = 0
    registered: int = 0
    statuses: Counter[str] = attrs.field(factory=Counter)
    notices: Counter[str] = attrs.field(factory=Counter)
    refused: Counter[str] = attrs.field(factory=Counter)
    examples: list[str] = attrs.field(factory=list)
    missing: tuple[str, ...] = ()
    _shown: Counter[str] = attrs.field(factory=Counter)

    @property
    def duplicates(self) -> int:
        """Rows that were further copies of a message."""
        return self.merged - self.messages

    def add(self, merged: Merged) -> None:
        """Count in one message."""
        self.merged += merged.copies
        self.messages += 1
        self.revisions += len(merged.earlier)
        self.deleted += merged.message.deleted_at is not None
        self.statuses[merged.message.status.value] += 1
        for notice in merged.notices:
            self.notices[notice.value] += 1

    def refuse(self, where: str, error: InvalidInput, rows: int) -> None:
        """Count in `rows` rows that cannot be brought."""
        reason = error.field if error.field != "text" else "text or caption"
        self.refused[reason] += rows
        if self._shown[reason] < EXAMPLES:
            self._shown[reason] += 1
            self.examples.append(f"{where}: {error}")


@attrs.frozen(slots=True, kw_only=True)
class ChannelResult:
    """One channel: what the source has, and what became of it in the target.

    `brought` messages are the source's; `present` were stored before, and stay as they are.
    `verified` of the brought ones were compared with the source by checksum, `changed` ones have
    been edited, marked or deleted since and were not. `problem` says what does not agree.
    """

    channel_id: int
    rows: int
    messages: int
    brought: int
    present: int
    revisions: int
    verified: int = 0
    changed: int = 0
    problem: str | None = None


@attrs.frozen(slots=True, kw_only=True)
class Migrated:
    """What `migrate` did. After a dry run `channels` is empty.

    `resumed` is how many messages earlier runs had brought or found present.
    """

    source: str
    target: str
    dry_run: bool
    found: Found
    channels: tuple[ChannelResult, ...] = ()
    resumed: int = 0
    seconds: float = 0.0

    @property
    def brought(self) -> int:
        """Messages of the source that are now in the target, all runs together."""
        return sum(each.brought for each in self.channels)

    @property
    def present(self) -> int:
        """Messages that the target had before."""
        return sum(each.present for each in self.channels)

    @property
    def revisions(self) -> int:
        """Earlier contents that were brought."""
        return sum(each.revisions for each in self.channels)

    @property
    def problems(self) -> tuple[str, ...]:
        """What did not agree when it was verified."""
        return tuple(
            f"channel {each.channel_id}: {each.problem}" for each in self.channels if each.problem
        )


@attrs.frozen(slots=True, kw_only=True)
class RolledBack:
    """What `rollback` removed. `stayed` messages have been changed since they were brought.

    `told` is False if Redis did not take it that messages are gone.
    """

    messages: int = 0
    revisions: int = 0
    channels: int = 0
    stayed: int = 0
    told: bool = True

    def __add__(self, other: RolledBack) -> RolledBack:
        return RolledBack(
            messages=self.messages + other.messages,
            revisions=self.revisions + other.revisions,
            channels=self.channels + other.channels,
            stayed=self.stayed + other.stayed,
            told=self.told and other.told,
        )
