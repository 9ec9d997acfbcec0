"""Channel: one chat whose messages are kept."""

from __future__ import annotations

from datetime import datetime

import attrs

from telegram_hybrid.model import checks


@attrs.frozen(slots=True, kw_only=True)
class Channel:
    """A channel, group or chat, by its marked chat id.

    `label` is our name for it, `title` and `username` are Telegram's (username without "@").
    Messages of an inactive channel are still stored; pollers skip it.
    """

    channel_id: int
    title: str | None = None
    username: str | None = None
    label: str | None = None
    description: str | None = None
    is_active: bool = True
    created_at: datetime | None = attrs.field(default=None, eq=False)
    updated_at: datetime | None = attrs.field(default=None, eq=False)

    def __attrs_post_init__(self) -> None:
        checks.channel_id("channel_id", self.channel_id)
        for field in ("title", "username", "label", "description"):
            if (value := getattr(self, field)) is not None:
                checks.text(field, value)
        for field in ("created_at", "updated_at"):
            if (value := getattr(self, field)) is not None:
                object.__setattr__(self, field, checks.instant(field, value))
