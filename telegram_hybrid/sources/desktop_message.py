"""One message of a Telegram Desktop export: the raw object becomes a Message.

Keys are those of tdesktop's export_output_json.cpp. What has no field of Message stays in
`metadata` under the export's own key, as it is.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from reprlib import repr as shown
from typing import Any

import attrs

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Channel, Media, Message, MessageType, Source, checks
from telegram_hybrid.sources import peers
from telegram_hybrid.sources.report import Report, Skipped
from telegram_hybrid.sources.runs import read_text
from telegram_hybrid.sources.vocabulary import (
    DESKTOP_ATTACHMENTS,
    DESKTOP_MEDIA,
    text_and_caption,
)

UNSUPPORTED = Skipped("unsupported message, exported without content")
MIGRATED = Skipped("message of the basic group before it became this supergroup")

#: The export's names for fields that a check may refuse.
_EXPORT_FIELDS = {
    "message_id": "id",
    "sent_at": "date",
    "edited_at": "edited",
    "caption": "text",
    "sender_id": "from_id",
    "sender_name": "from",
    "reply_to_id": "reply_to_message_id",
    "name": "file_name",
    "duration": "duration_seconds",
}
#: How many messages of a forum are remembered to find the topic of a reply to them.
_REMEMBERED = 20_000
_UNPLACED = ("(File ", "(Photo ")


@attrs.define(slots=True)
class Chat:
    """One chat of an export while it is read: its marked id, and the topics met in it."""

    channel_id: int
    chat_type: str
    name: str | None = None
    topics: set[int] = attrs.field(factory=set)
    placed: dict[int, int] = attrs.field(factory=dict)

    @property
    def channel(self) -> Channel:
        """The chat as a value to register."""
        return Channel(channel_id=self.channel_id, title=self.name or None)


def to_message(
    raw: dict[str, Any], chat: Chat, *, timezone: tzinfo = UTC, report: Report | None = None
) -> Message | Skipped:
    """Return the message, or why there is none. `raw` is taken apart.

    `timezone` is the zone of a `date` without `date_unixtime` (exports before June 2022); such
    messages are counted in `report`. Raises `InvalidInput` naming the export's field.
    """
    kind = raw.pop("type", "message")
    if kind == "unsupported":
        return UNSUPPORTED
    message_id = raw.pop("id", None)
    if type(message_id) is int and message_id < 0:
        return MIGRATED
    try:
        return _message(raw, chat, kind, message_id, timezone, report)
    except InvalidInput as error:
        name = error.field.removeprefix("metadata.")
        raise InvalidInput(_EXPORT_FIELDS.get(name, name), error.problem) from error


def _message(
    raw: dict[str, Any],
    chat: Chat,
    kind: Any,
    message_id: Any,
    timezone: tzinfo,
    report: Report | None,
) -> Message:
    if message_id is None:
        raise InvalidInput("id", "missing")
    service = kind == "service"
    sent_at, edited_at = _times(raw, timezone, report)
    text, entities, left = read_text(raw)
    media = () if service else _media(raw)
    text, caption = text_and_caption(text, media)
    sender = "actor" if service and ("actor" in raw or "actor_id" in raw) else "from"
    reply_to_id = None if "reply_to_peer_id" in raw else raw.pop("reply_to_message_id", None)
    return Message(
        channel_id=chat.channel_id,
        message_id=message_id,
        sent_at=sent_at,
        edited_at=edited_at,
        text=text,
        caption=caption,
        entities=entities,
        message_type=_message_type(kind, chat),
        source=Source.DESKTOP_EXPORT,
        sender_id=peers.sender(
            f"{sender}_id", raw.pop(f"{sender}_id", None), chat_id=chat.channel_id
        ),
        sender_name=raw.pop(sender, None) or None,
        reply_to_id=reply_to_id,
        thread_id=_thread(chat, message_id, reply_to_id, raw.get("action")),
        media=media,
        metadata={**raw, **left} if left else raw,
    )


def _message_type(kind: Any, chat: Chat) -> MessageType:
    if kind == "service":
        return MessageType.SERVICE
    if kind != "message":
        raise InvalidInput("type", f"{shown(kind)} is neither 'message' nor 'service'")
    return MessageType.CHANNEL_POST if peers.is_channel(chat.chat_type) else MessageType.MESSAGE


def _thread(chat: Chat, message_id: Any, reply_to_id: Any, action: Any) -> int | None:
    """Return the topic of a forum's message: the id of the service message that opened it.

    An export does not say it, but a message in a topic replies to that opening or to another
    message of the topic. Of each forum the last 20,000 such messages are remembered.
    """
    if action == "topic_created" and type(message_id) is int:
        chat.topics.add(message_id)
        return message_id
    if not chat.topics or type(reply_to_id) is not int:
        return None
    thread = reply_to_id if reply_to_id in chat.topics else chat.placed.get(reply_to_id)
    if thread is not None:
        chat.placed[message_id] = thread
        if len(chat.placed) > _REMEMBERED:
            del chat.placed[next(iter(chat.placed))]
    return thread


def _times(
    raw: dict[str, Any], timezone: tzinfo, report: Report | None
) -> tuple[datetime, datetime | None]:
    date, seconds = raw.pop("date", None), raw.pop("date_unixtime", None)
    edited, edited_seconds = raw.pop("edited", None), raw.pop("edited_unixtime", None)
    if seconds is not None:
        sent_at = _from_seconds("date_unixtime", seconds)
    elif date is not None:
        sent_at, assumed = _from_local("date", date, timezone)
        if assumed and report:
            report.assumed_timezone += 1
    else:
        raise InvalidInput("date", "missing")
    if edited_seconds is not None:
        edited_at = _from_seconds("edited_unixtime", edited_seconds)
    elif edited:
        shown = _shown_offset(date, sent_at) if seconds is not None else None
        local, naive = _from_local("edited", edited, timezone if shown is None else UTC)
        edited_at = local - shown if naive and shown is not None else local
    else:
        return sent_at, None
    # Exports before June 2020 write `edited` of 1970 (in local time) for "never".
    return sent_at, edited_at if edited_at.timestamp() > 86_400 else None


def _from_seconds(field: str, value: Any) -> datetime:
    try:
        return datetime.fromtimestamp(int(value), UTC)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise InvalidInput(field, f"{shown(value)} is not a time in Unix seconds") from error


def _from_local(field: str, value: Any, timezone: tzinfo) -> tuple[datetime, bool]:
    """Return the time, and whether its zone was assumed."""
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(field, f"{shown(value)} is not a date and time") from error
    if time.tzinfo is not None:
        return time, False
    try:
        return time.replace(tzinfo=timezone).astimezone(UTC), True
    except (ValueError, OverflowError) as error:
        raise InvalidInput(field, f"{shown(value)} is out of range") from error


def _shown_offset(date: Any, sent_at: datetime) -> timedelta | None:
    """Return how far the exporter's clock was ahead of UTC, as `date` and its Unix time show."""
    try:
        return _from_local("date", date, UTC)[0] - sent_at
    except InvalidInput:
        return None


def _media(raw: dict[str, Any]) -> tuple[Media, ...]:
    if "photo" in raw:
        return (_file(raw, "photo", "photo", "photo_file_size"),)
    if "file" in raw:
        return (_file(raw, _kind(raw) or "document", "file", "file_size"),)
    for key, kind in DESKTOP_ATTACHMENTS.items():
        if key in raw:
            if raw.get("media_type") == kind:
                del raw["media_type"]
            return (Media(type=kind),)
    if kind := _kind(raw):
        return (Media(type=kind),)
    return ()


def _kind(raw: dict[str, Any]) -> str:
    kind = checks.text("media_type", raw.pop("media_type", ""))
    return DESKTOP_MEDIA.get(kind, kind)


def _file(raw: dict[str, Any], kind: str, path_key: str, size_key: str) -> Media:
    if raw.get("media_type") == kind:
        del raw["media_type"]
    path = raw[path_key]
    placed = not (isinstance(path, str) and path.startswith(_UNPLACED))
    if placed:
        del raw[path_key]
    try:
        return Media(
            type=kind,
            path=path if placed else None,
            name=raw.pop("file_name", None),
            mime_type=raw.pop("mime_type", None),
            size=_count(raw, size_key),
            width=_count(raw, "width"),
            height=_count(raw, "height"),
            duration=_count(raw, "duration_seconds"),
        )
    except InvalidInput as error:
        name = {"path": path_key, "size": size_key}.get(error.field, error.field)
        raise InvalidInput(name, error.problem) from error


def _count(raw: dict[str, Any], key: str) -> int | None:
    """Take a number that may be written as a string of digits."""
    value = raw.pop(key, None)
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        return int(value)
    return None if value is None else checks.count(key, value)
