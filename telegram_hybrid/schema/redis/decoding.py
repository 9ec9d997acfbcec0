"""Decoding messages that we have encoded: checked by msgspec while it parses them, not once more.

It makes instances of classes that say of each field what the model checks of it, and those then
become the model's own. What msgspec does not see (NUL and lone surrogates, which JSON writes as
escapes, times of another zone or century, what is very long or deep) sends a message to the model's
checks, and so does whatever is refused here: the model has the last word.
"""

from __future__ import annotations

from datetime import datetime, timezone
from operator import attrgetter
from typing import Annotated

import msgspec
from msgspec import Meta

from telegram_hybrid.model import Entity, Media, Message
from telegram_hybrid.model.checks import EARLIEST, LATEST, MAX_DEPTH, MAX_ID, MAX_SHORT

_Count = Annotated[int, Meta(ge=0, le=MAX_ID)]
_MessageId = Annotated[int, Meta(ge=0, lt=MAX_ID)]
_ChannelId = Annotated[int, Meta(gt=-MAX_ID, lt=MAX_ID)]
_BigInt = Annotated[int, Meta(gt=-(2**63), le=2**63 - 1)]
_Seconds = Annotated[float, Meta(ge=0, lt=1e9)]


class _Unchecked:
    """A class of the model whose instances are not checked when they are made."""

    __slots__ = ()

    def __attrs_post_init__(self) -> None:
        pass


class _Entity(_Unchecked, Entity):
    __slots__ = ()
    offset: _Count
    length: _Count
    user_id: _ChannelId | None


class _Media(_Unchecked, Media):
    __slots__ = ()
    size: _Count | None
    width: _Count | None
    height: _Count | None
    duration: _Seconds | None


class _Message(_Unchecked, Message):
    __slots__ = ()
    channel_id: _ChannelId
    message_id: _MessageId
    entities: tuple[_Entity, ...]
    sender_id: _BigInt | None
    reply_to_id: _MessageId | None
    thread_id: _MessageId | None
    grouped_id: _BigInt | None
    media: tuple[_Media, ...]
    version: Annotated[int, Meta(ge=0, le=2**63 - 1)]


_decode = msgspec.json.Decoder(_Message).decode
_set = object.__setattr__


def decode(data: bytes) -> Message:
    """Decode what `Message.to_json` wrote. Raises `InvalidInput`, as `Message.from_json` does."""
    if len(data) > MAX_SHORT or b"\\u" in data or data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        return Message.from_json(data)  # only then may a text be too long, or hold a NUL
    try:
        found = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Message.from_json(data)
    return found if _settle(found) else Message.from_json(data)


def _settle(found: _Message) -> bool:
    """Make it one of the model's messages, if it is what the annotations cannot say as well."""
    sound = found.channel_id != 0 and _is_instant(found.sent_at)
    for at in _later(found):
        sound = sound and (at is None or _is_instant(at))
    for entity in found.entities:
        sound = sound and entity.user_id != 0
        _set(entity, "__class__", Entity)
    for media in found.media:
        _set(media, "__class__", Media)
    _set(found, "__class__", Message)
    return sound


_later = attrgetter("edited_at", "received_at", "deleted_at")


def _is_instant(at: datetime) -> bool:
    return at.tzinfo is timezone.utc and EARLIEST <= at < LATEST  # noqa: UP017
