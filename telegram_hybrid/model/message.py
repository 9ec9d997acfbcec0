"""Message: one Telegram message as a frozen value, and its parts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

import attrs
import msgspec

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import checks


class Status(StrEnum):
    """Where a message stands in the life that our systems give it."""

    RECEIVED = "received"
    QUEUED = "queued"
    RETRYING = "retrying"
    PUBLISHED = "published"
    FAILED = "failed"
    REPROCESS_PENDING = "reprocess_pending"
    REPROCESSED = "reprocessed"
    DELETED = "deleted"


class Source(StrEnum):
    """Through which door a message came in."""

    BOT = "bot"
    USER_CLIENT = "user_client"
    MTPROTO = "mtproto"
    DESKTOP_EXPORT = "desktop_export"
    UNKNOWN = "unknown"


class MessageType(StrEnum):
    """What kind of message it is; a service message has its action in `metadata["action"]`."""

    CHANNEL_POST = "channel_post"
    CHANNEL_POST_COMMENT = "channel_post_comment"
    MESSAGE = "message"
    SERVICE = "service"


class MessageKey(NamedTuple):
    """What identifies a message everywhere: the marked chat id and the id within it."""

    channel_id: int
    message_id: int


@attrs.frozen(slots=True, kw_only=True)
class Entity:
    """A formatted or linked stretch of the text.

    `offset` and `length` count UTF-16 code units, as Telegram does (Bot API, MessageEntity).
    """

    type: str
    offset: int
    length: int
    url: str | None = None
    user_id: int | None = None
    language: str | None = None
    custom_emoji_id: str | None = None

    def __attrs_post_init__(self) -> None:
        checks.text("type", self.type)
        checks.count("offset", self.offset)
        checks.count("length", self.length)
        for field in ("url", "language", "custom_emoji_id"):
            if (value := getattr(self, field)) is not None:
                checks.text(field, value)
        if self.user_id is not None:
            checks.channel_id("user_id", self.user_id)


@attrs.frozen(slots=True, kw_only=True)
class Media:
    """One attached file, or another attachment such as a poll, place or contact (no file then).

    `file_id` is the id at Telegram, `path` the place within an export. `size` is in bytes,
    `duration` in seconds, `width` and `height` in pixels.
    """

    type: str
    file_id: str | None = None
    path: str | None = None
    name: str | None = None
    mime_type: str | None = None
    size: int | None = None
    width: int | None = None
    height: int | None = None
    duration: float | None = None

    def __attrs_post_init__(self) -> None:
        checks.text("type", self.type)
        for field in ("file_id", "path", "name", "mime_type"):
            if (value := getattr(self, field)) is not None:
                checks.text(field, value)
        for field in ("size", "width", "height"):
            if (value := getattr(self, field)) is not None:
                checks.count(field, value)
        if self.duration is not None:
            checks.seconds("duration", self.duration)


@attrs.frozen(slots=True, kw_only=True)
class Message:
    """One message of a channel, group or chat.

    `channel_id` is the marked chat id (-100... for channels and supergroups), `message_id` the
    id within it. `sent_at` and `edited_at` are aware and kept in UTC. What has no field of its
    own is in `metadata`, a JSON object. Read from the store, `edited_at` is that of the delivery
    which brought this content; a later one that said the same again changes no field.

    The last seven fields are our own record of the message, set when it is read from the store;
    they take no part in equality, so that a message read back equals the message saved.
    `status_reason` is what was said with the status; of a deleted message, with the one before.
    `stale`: this is only what was last known; it is true where the caller allowed it, and in no
    JSON.

    Raises `InvalidInput`, naming the field, for anything the store could not hold.
    """

    channel_id: int
    message_id: int
    sent_at: datetime
    text: str = ""
    caption: str | None = None
    entities: tuple[Entity, ...] = ()
    edited_at: datetime | None = None
    message_type: MessageType = MessageType.CHANNEL_POST
    source: Source = Source.UNKNOWN
    sender_id: int | None = None
    sender_name: str | None = None
    reply_to_id: int | None = None
    thread_id: int | None = None
    grouped_id: int | None = None
    media: tuple[Media, ...] = ()
    metadata: dict[str, Any] = attrs.field(factory=dict, hash=False)

    status: Status = attrs.field(default=Status.RECEIVED, eq=False)
    version: int = attrs.field(default=0, eq=False)
    received_at: datetime | None = attrs.field(default=None, eq=False)
    deleted_at: datetime | None = attrs.field(default=None, eq=False)
    delete_reason: str | None = attrs.field(default=None, eq=False)
    status_reason: str | None = attrs.field(default=None, eq=False)
    stale: bool = attrs.field(default=False, eq=False)

    def __attrs_post_init__(self) -> None:
        """Check every field; times and metadata are normalised to UTC and to plain JSON."""
        checks.channel_id("channel_id", self.channel_id)
        checks.message_id("message_id", self.message_id)
        _set(self, "sent_at", checks.instant("sent_at", self.sent_at))
        checks.text("text", self.text, most=checks.MAX_TEXT)
        for field, check in _OPTIONAL:
            if (value := getattr(self, field)) is not None:
                _set(self, field, check(field, value))
        for field, kind in _ENUMS:
            if type(value := getattr(self, field)) is not kind:
                _set(self, field, checks.member(kind, field, value))
        for field, part in _PARTS:
            if value := getattr(self, field):
                _set(self, field, checks.tuple_of(part, field, value))
        checks.count("version", self.version, most=2**63 - 1)
        if self.metadata or type(self.metadata) is not dict:
            _set(self, "metadata", checks.json_object("metadata", self.metadata))

    @property
    def key(self) -> MessageKey:
        """The identity of the message: (channel_id, message_id)."""
        return MessageKey(self.channel_id, self.message_id)

    @property
    def content(self) -> str:
        """What the message says: its text, or the caption of its media; "" for neither."""
        return self.text or self.caption or ""

    @property
    def media_type(self) -> str | None:
        """The kind of the first attachment, such as "photo"; None without one."""
        return self.media[0].type if self.media else None

    def to_json(self) -> bytes:
        """Encode as one UTF-8 JSON object, defaults left out; `from_json` is its inverse."""
        return msgspec.json.encode(compact(self))

    @classmethod
    def from_json(cls, data: bytes | str) -> Message:
        """Decode what `to_json` wrote. Raises `InvalidInput` naming the field."""
        try:
            return _DECODER.decode(data)
        except InvalidInput:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if isinstance(error.__cause__, InvalidInput):
                raise error.__cause__ from error
            raise InvalidInput("message", str(error)) from error


def arrived(message: Message, version: int, received_at: datetime) -> Message:
    """Return what Telegram said of a message, with our own record of it begun anew.

    It was checked when it was made; to check it again takes longer than to store it. Only its
    metadata may have been changed since, and may be again: that is checked, and copied.
    """
    copy: Message = object.__new__(Message)
    for name in _SAID:
        _set(copy, name, getattr(message, name))
    for name, value in _RECORD:
        _set(copy, name, value)
    _set(copy, "metadata", checks.json_object("metadata", message.metadata))
    _set(copy, "version", version)
    _set(copy, "received_at", received_at)
    return copy


def compact(message: Message) -> dict[str, Any]:
    """Return the fields that differ from their defaults, in the order of the class.

    Most messages use a third of the fields: this halves what is cached and published.
    """
    fields = {}
    for name, default in _DEFAULTS:
        value = getattr(message, name)
        if value != default:
            fields[name] = value
    if message.entities:
        fields["entities"] = [present(entity) for entity in message.entities]
    if message.media:
        fields["media"] = [present(media) for media in message.media]
    return fields


def present(part: Entity | Media) -> dict[str, Any]:
    """Return the fields of an entity or attachment that are set."""
    names = _ENTITY_FIELDS if type(part) is Entity else _MEDIA_FIELDS
    return {name: value for name in names if (value := getattr(part, name)) is not None}


_set = object.__setattr__
_OPTIONAL: tuple[tuple[str, Callable[[str, Any], Any]], ...] = (
    ("edited_at", checks.instant),
    ("received_at", checks.instant),
    ("deleted_at", checks.instant),
    ("caption", partial(checks.text, most=checks.MAX_TEXT)),
    ("sender_name", checks.text),
    ("delete_reason", checks.text),
    ("status_reason", checks.text),
    ("sender_id", checks.bigint),
    ("grouped_id", checks.bigint),
    ("reply_to_id", checks.message_id),
    ("thread_id", checks.message_id),
)
_ENUMS: tuple[tuple[str, type[StrEnum]], ...] = (
    ("message_type", MessageType),
    ("source", Source),
    ("status", Status),
)
_PARTS: tuple[tuple[str, type], ...] = (("entities", Entity), ("media", Media))
_ENTITY_FIELDS = tuple(field.name for field in attrs.fields(Entity))
_MEDIA_FIELDS = tuple(field.name for field in attrs.fields(Media))
_DEFAULTS = tuple(
    (field.name, {} if field.name == "metadata" else field.default)
    for field in attrs.fields(Message)
    if field.name != "stale"
)
_SAID = tuple(field.name for field in attrs.fields(Message) if field.eq)
_RECORD = tuple((field.name, field.default) for field in attrs.fields(Message) if not field.eq)
_DECODER = msgspec.json.Decoder(Message)
