"""Telethon's messages and events become messages, without a client and without a network.

Telethon itself is never imported here: its objects are told apart by the names of their classes.
What has no field of Message is in `metadata` under MTProto's own name; unset flags and what
expires within hours (file references) are left out.
"""

from __future__ import annotations

import base64
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Entity, Message, MessageKey, MessageType, Source
from telegram_hybrid.sources.report import Skipped
from telegram_hybrid.sources.telethon_media import media_of
from telegram_hybrid.sources.vocabulary import ENTITIES, MTPROTO_ACTIONS, text_and_caption

if TYPE_CHECKING:
    from telethon.tl.custom import Message as TelethonMessage

#: Keys of a message that have a field of Message.
_TAKEN = frozenset(
    {"_", "id", "peer_id", "date", "message", "entities", "edit_date", "from_id", "grouped_id"}
    | {"post", "out", "reactions_are_possible"}
)
_REPLY_TAKEN = frozenset({"_", "reply_to_msg_id", "reply_to_top_id", "forum_topic"})
#: Keys that expire or repeat the picture itself.
_PASSING = frozenset({"file_reference", "thumbs", "video_thumbs", "sizes", "cached_page"})
_ENTITY_KEYS = frozenset(
    {"_", "offset", "length", "url", "user_id", "language", "document_id", "collapsed"}
)
#: MTProto's names for fields that a check may refuse.
_MTPROTO_FIELDS = {
    "channel_id": "peer_id",
    "message_id": "id",
    "sent_at": "date",
    "edited_at": "edit_date",
    "text": "message",
    "caption": "message",
    "sender_id": "from_id",
    "sender_name": "sender",
    "reply_to_id": "reply_to",
    "thread_id": "reply_to",
}
_WORD = re.compile(r"(?<!^)(?=[A-Z])")


@attrs.frozen(slots=True)
class Deleted:
    """What a MessageDeleted event tells: these messages are gone."""

    keys: tuple[MessageKey, ...]


def from_event(event: Any, *, source: Source = Source.MTPROTO) -> Message | Deleted | Skipped:
    """Return what a NewMessage, MessageEdited or MessageDeleted event tells; others are Skipped.

    A deletion outside of channels comes without a chat id, and is Skipped. Raises `InvalidInput`.
    """
    kind = type(event).__qualname__.partition(".")[0]
    if kind in ("NewMessage", "MessageEdited"):
        return from_message(event.message, source=source)
    if kind != "MessageDeleted":
        return Skipped(f"event {kind!r}")
    if event.chat_id is None:
        return Skipped("deletion without a chat id")
    return Deleted(tuple(MessageKey(event.chat_id, number) for number in event.deleted_ids))


def from_message(message: TelethonMessage, *, source: Source = Source.MTPROTO) -> Message:
    """Return the message of a Telethon Message or MessageService.

    `source` says through which door it came, for a client that is a bot. Raises `InvalidInput`
    naming MTProto's field ("id", "peer_id", "entities[3].url").
    """
    if not (hasattr(message, "peer_id") and hasattr(message, "to_dict")):
        raise InvalidInput("message", f"expected a Telethon message, got {type(message).__name__}")
    if type(message).__name__ == "MessageEmpty":
        raise InvalidInput("message", f"{message.id} is empty: deleted, or not visible to us")
    try:
        return _message(message, source)
    except InvalidInput as error:
        name = error.field.removeprefix("metadata.")
        raise InvalidInput(_MTPROTO_FIELDS.get(name, name), error.problem) from error


def _message(message: Any, source: Source) -> Message:
    action = getattr(message, "action", None)
    media = () if action else media_of(message.media)
    text, caption = text_and_caption(message.message or "", media)
    reply_to_id, thread_id = _reply(message)
    return Message(
        channel_id=message.chat_id,
        message_id=message.id,
        sent_at=message.date,
        edited_at=getattr(message, "edit_date", None),
        text=text,
        caption=caption,
        entities=_entities(getattr(message, "entities", None) or ()),
        message_type=_message_type(message),
        source=source,
        sender_id=message.sender_id,
        sender_name=_name(message.sender),
        reply_to_id=reply_to_id,
        thread_id=thread_id,
        grouped_id=getattr(message, "grouped_id", None),
        media=media,
        metadata=_metadata(message, action),
    )


def _message_type(message: Any) -> MessageType:
    if getattr(message, "action", None):
        return MessageType.SERVICE
    return MessageType.CHANNEL_POST if message.post else MessageType.MESSAGE


def _reply(message: Any) -> tuple[int | None, int | None]:
    """Return the id replied to within the chat, and the topic or thread."""
    if type(getattr(message, "action", None)).__name__ == "MessageActionTopicCreate":
        return None, message.id
    header = getattr(message, "reply_to", None)
    replied = getattr(header, "reply_to_msg_id", None)
    thread = getattr(header, "reply_to_top_id", None)
    if thread is None and getattr(header, "forum_topic", None):
        thread = replied
    if getattr(header, "reply_to_peer_id", None) is not None:
        replied = None
    return replied, thread


def _name(sender: Any) -> str | None:
    """Return the name of a sender, where Telethon knows it without asking."""
    if title := getattr(sender, "title", None):
        return str(title)
    parts = (getattr(sender, "first_name", None), getattr(sender, "last_name", None))
    return " ".join(str(part) for part in parts if part) or None


def _entities(items: Any) -> tuple[Entity, ...]:
    entities = []
    for index, item in enumerate(items):
        try:
            entities.append(_entity(item))
        except InvalidInput as error:
            raise InvalidInput(f"entities[{index}].{error.field}", error.problem) from error
    return tuple(entities)


def _entity(item: Any) -> Entity:
    kind = _words(type(item).__name__.removeprefix("Input").removeprefix("MessageEntity"))
    if kind == "blockquote" and item.collapsed:
        kind = "expandable_blockquote"
    user_id = getattr(item, "user_id", None)
    emoji = getattr(item, "document_id", None)
    return Entity(
        type=ENTITIES.get(kind, kind),
        offset=item.offset,
        length=item.length,
        url=getattr(item, "url", None),
        user_id=getattr(user_id, "user_id", user_id),
        language=getattr(item, "language", None) or None,
        custom_emoji_id=None if emoji is None else str(emoji),
    )


def _metadata(message: Any, action: Any) -> dict[str, Any]:
    raw = message.to_dict()
    left = {key: plain(value) for key, value in raw.items() if key not in _TAKEN and value}
    if action:
        name = _words(type(action).__name__.removeprefix("MessageAction"))
        details = left.pop("action")
        del details["_"]
        left = {"action": MTPROTO_ACTIONS.get(name, name), **details, **left}
    entities = raw.get("entities") or ()
    if any(not _ENTITY_KEYS.issuperset(item) for item in entities):
        left["entities"] = plain(entities)
    reply = raw.get("reply_to") or {}
    if not any(value for key, value in reply.items() if key not in _REPLY_TAKEN):
        left.pop("reply_to", None)
    return left


def plain(value: Any) -> Any:
    """Return a value of Telethon's to_dict as plain JSON, without unset flags."""
    if isinstance(value, dict):
        return {
            key: plain(item)
            for key, item in value.items()
            if item is not None and item is not False and key not in _PASSING
        }
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, datetime) else value


def _words(name: str) -> str:
    """Return "text_url" for "TextUrl"."""
    return _WORD.sub("_", name).lower()
