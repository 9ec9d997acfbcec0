"""What `messages.changes` lists: a page of changes, and the cursor to go on with."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import attrs

from telegram_hybrid.model.event import EventType
from telegram_hybrid.model.message import Message, MessageKey, Status


@attrs.frozen(slots=True, kw_only=True)
class MessageChange:
    """One change of one message: it arrived, was edited, got another status or was deleted.

    `version` and `status` are those that this change gave the message, `changed_at` (UTC, the
    database's clock) is when. `message` is the message as it is now, deleted ones included, so of
    two edits both changes show the later text; the earlier one is in `messages.revisions`, under
    its version. It is None when the message itself is no longer kept. `status` is None of a change
    that a process of an older release made.
    """

    key: MessageKey
    type: EventType
    version: int
    status: Status | None
    changed_at: datetime
    message: Message | None

    @property
    def is_latest(self) -> bool:
        """Whether the message is still as this change left it."""
        return self.message is not None and self.message.version == self.version


@attrs.frozen(slots=True)
class Changes:
    """A page of changes: iterate over it; false when there are none.

    `cursor` is where it ends: what the next call goes on with. `more`: the next call would find
    some at once.
    """

    items: tuple[MessageChange, ...]
    cursor: str
    more: bool = False

    def __iter__(self) -> Iterator[MessageChange]:
        """The changes, in the order of their versions."""
        return iter(self.items)

    def __len__(self) -> int:
        """How many there are on this page."""
        return len(self.items)
