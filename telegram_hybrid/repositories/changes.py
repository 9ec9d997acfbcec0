"""Changes: what happened to messages, page by page, for pollers and notebooks without a broker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC

from sqlalchemy import Connection

from telegram_hybrid.errors import CursorExpired, InvalidInput
from telegram_hybrid.model import (
    Changes,
    EventType,
    Message,
    MessageChange,
    MessageKey,
    Status,
    checks,
)
from telegram_hybrid.outbox import changelog
from telegram_hybrid.outbox.changelog import Answer, LoggedChange
from telegram_hybrid.repositories import reading
from telegram_hybrid.repositories.positions import Positions

#: The cursor of who wants to hear of what happens from now on.
NOW = "now"
MOST = 10_000


def checked(
    cursor: str | None, channels: Iterable[int] | None, limit: int
) -> tuple[Positions | None, list[int] | None]:
    """Return the positions (None: now) and the channels. Raises `InvalidInput` naming the field."""
    checks.count("limit", limit, least=1, most=MOST)
    if channels is not None:
        given = enumerate(checks.iterable("channels", channels))
        channels = sorted({checks.channel_id(f"channels[{at}]", each) for at, each in given})
    if cursor == NOW:
        return None, channels
    return (Positions() if cursor is None else Positions.decode(cursor)), channels


def page(
    connection: Connection,
    schema: str,
    positions: Positions | None,
    channels: list[int] | None,
    limit: int,
) -> Changes:
    """Return the changes behind `positions`, up to `limit`; none of what was before now for None.

    `connection` need not be in a transaction: what is missing from one page is on the next.
    """
    if positions is None:
        heads = changelog.present(connection, schema, channels)
        return Changes((), Positions(heads).asked(channels).encode())
    answer = changelog.read(
        connection,
        schema,
        positions.versions,
        everywhere=positions.everywhere,
        channels=channels,
        limit=limit + 1,
    )
    refuse_gaps(answer)
    logged = answer.changes[:limit]
    messages = _messages(connection, schema, logged)
    reached = (
        positions.asked(channels)
        .reached(answer.begun.items())
        .reached((each.channel_id, each.version) for each in logged)
    )
    items = [_change(each, messages) for each in sorted(logged, key=lambda each: each.version)]
    return Changes(tuple(items), reached.encode(), more=len(answer.changes) > limit)


def refuse_gaps(answer: Answer) -> None:
    """Raise `CursorExpired` or `InvalidInput` where changes would be missing unsaid."""
    for channel_id, version in answer.behind.items():
        raise CursorExpired(channel_id, version)
    for channel_id, version in answer.ahead.items():
        raise InvalidInput(
            "cursor",
            f"channel {channel_id} has come no further than version {version}, which the cursor is "
            "beyond: it is of another database, or this one was set back; begin with a new one",
        )


def _messages(
    connection: Connection, schema: str, logged: Sequence[LoggedChange]
) -> dict[MessageKey, Message]:
    keys = {
        MessageKey(each.channel_id, each.message_id): each.sent_at
        for each in logged
        if each.sent_at is not None
    }
    return reading.by_keys(connection, schema, keys) if keys else {}


def _change(logged: LoggedChange, messages: dict[MessageKey, Message]) -> MessageChange:
    key = MessageKey(logged.channel_id, logged.message_id)
    return MessageChange(
        key=key,
        type=EventType(logged.type),
        version=logged.version,
        status=None if logged.status is None else Status(logged.status),
        changed_at=logged.changed_at.astimezone(UTC),
        message=messages.get(key),
    )
