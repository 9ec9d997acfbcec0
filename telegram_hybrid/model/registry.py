"""What the registry of channels answers: which chat followed on which, and what is not known."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import attrs

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import checks

#: Marked ids of channels and supergroups lie below, those of basic groups between it and 0.
#: (core.telegram.org/api/bots/ids)
_SUPERGROUPS = -1_000_000_000_000


class UnknownChannels(StrEnum):
    """What saving does with a message of a channel that is not registered."""

    REGISTER = "register"
    REFUSE = "refuse"


def is_supergroup(channel_id: int) -> bool:
    """Tell a channel or supergroup from a basic group or a private chat, by its marked id."""
    return channel_id < _SUPERGROUPS


@attrs.frozen(slots=True, kw_only=True)
class Migration:
    """A basic group became a supergroup: the history of `old` goes on in `new`.

    `migrated_at` is when Telegram says it happened, or None; `recorded_at` when we learned of it.
    """

    old: int
    new: int
    migrated_at: datetime | None = None
    recorded_at: datetime | None = attrs.field(default=None, eq=False)

    def __attrs_post_init__(self) -> None:
        """Check both ids: only a basic group migrates, and only to a supergroup."""
        checks.channel_id("old", self.old)
        checks.channel_id("new", self.new)
        if not _SUPERGROUPS < self.old < 0:
            raise InvalidInput("old", f"{self.old} is no basic group: its id is -1 to -10^12 + 1")
        if not is_supergroup(self.new):
            raise InvalidInput("new", f"{self.new} is no supergroup: its id begins with -100")
        for field in ("migrated_at", "recorded_at"):
            if (value := getattr(self, field)) is not None:
                object.__setattr__(self, field, checks.instant(field, value))


@attrs.frozen(slots=True, kw_only=True)
class Gap:
    """Ids from `first` to `last`, both included, of which nothing was ever stored.

    That proves nothing: a message may have been deleted before we saw it, or be of a kind that no
    source tells. `after` and `before` are when the known messages on both sides were sent (UTC);
    None where there is none.
    """

    first: int
    last: int
    after: datetime | None = None
    before: datetime | None = None

    @property
    def count(self) -> int:
        """How many ids."""
        return self.last - self.first + 1


@attrs.frozen(slots=True, kw_only=True)
class GapReport:
    """What is known of a channel's ids, and what is not; never what is lost.

    `known` messages were stored at some time, from `first_id` to `last_id`; `deleted` of them are
    marked as deleted and still stored. Between them `missing` ids in `gap_count` gaps are not
    known; `gaps` are some of these, by id. `head` are the ids below the first known, down to 1;
    None if there are none. What follows `last_id` cannot be known from here.

    `numbered` is False for basic groups and private chats: their ids are counted over all chats of
    an account (core.telegram.org/api/messages), so that a gap there says nothing at all, and `head`
    is None. The history of the chat begins in `migrated_from`, or goes on in `migrated_to`.
    """

    channel_id: int
    numbered: bool
    known: int
    deleted: int
    first_id: int | None
    last_id: int | None
    missing: int
    gap_count: int
    head: Gap | None
    gaps: tuple[Gap, ...]
    migrated_from: int | None = None
    migrated_to: int | None = None
