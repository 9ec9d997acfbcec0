"""Bot API updates (core.telegram.org/bots/api) become messages.

Message, edited_message, channel_post and edited_channel_post are messages; every other kind of
update is `Skipped`. What has no field of Message stays in `metadata` under the Bot API's own key.
Of a message replied to or pinned only the id is kept: it is a message of its own. Of the chat,
`channel_of` makes a Channel.
"""

from __future__ import annotations

from datetime import UTC, datetime
from reprlib import repr as shown
from typing import Any

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Channel, Entity, Message, MessageType, Source, checks
from telegram_hybrid.sources.botapi_media import take_media
from telegram_hybrid.sources.jsontext import decode, json_object
from telegram_hybrid.sources.report import Skipped
from telegram_hybrid.sources.vocabulary import BOT_ACTIONS

#: The updates that carry a message, and whether it is a channel's post.
MESSAGE_KINDS = {
    "message": False,
    "edited_message": False,
    "channel_post": True,
    "edited_channel_post": True,
}
#: Fields that make a message a service message (Bot API 9.3, class Message).
_SERVICE = frozenset(BOT_ACTIONS) | {
    "boost_added",
    "chat_background_set",
    "chat_shared",
    "checklist_tasks_added",
    "checklist_tasks_done",
    "connected_website",
    "direct_message_price_changed",
    "forum_topic_closed",
    "forum_topic_reopened",
    "general_forum_topic_hidden",
    "general_forum_topic_unhidden",
    "gift",
    "gift_upgrade_sent",
    "giveaway_completed",
    "giveaway_created",
    "paid_message_price_changed",
    "passport_data",
    "refunded_payment",
    "successful_payment",
    "suggested_post_approval_failed",
    "suggested_post_approved",
    "suggested_post_declined",
    "suggested_post_paid",
    "suggested_post_refunded",
    "unique_gift",
    "users_shared",
    "video_chat_ended",
    "video_chat_started",
    "web_app_data",
    "write_access_allowed",
}
_ENTITY_KEYS = frozenset({"type", "offset", "length", "url", "user", "language", "custom_emoji_id"})
#: The Bot API's names for fields that a check may refuse.
_API_FIELDS = {
    "channel_id": "chat.id",
    "sent_at": "date",
    "edited_at": "edit_date",
    "sender_id": "from.id",
    "sender_name": "from",
    "reply_to_id": "reply_to_message.message_id",
    "thread_id": "message_thread_id",
    "grouped_id": "media_group_id",
}


def from_update(update: dict[str, Any] | bytes | str) -> Message | Skipped:
    """Return the message of one update, given as an object or as JSON, or why there is none.

    Raises `InvalidInput` naming the Bot API's field ("message_id", "chat.id", "entities[3].url").
    """
    if not isinstance(update, dict):
        update = json_object("update", decode("update", update))
    for kind, post in MESSAGE_KINDS.items():
        if kind in update:
            return from_message(json_object(kind, update[kind]), post=post)
    kinds = [key for key in update if key != "update_id"]
    if len(kinds) != 1:
        raise InvalidInput("update", f"expected one kind of update, got {shown(kinds)}")
    return Skipped(f"update kind {kinds[0][:64]!r}")


def from_message(message: dict[str, Any], *, post: bool | None = None) -> Message:
    """Return the message of a Bot API Message object; `post` says whether it is a channel's post.

    Without `post`, the type of the chat tells. Raises `InvalidInput` naming the Bot API's field.
    """
    raw = dict(message)
    chat = json_object("chat", raw.pop("chat", None))
    if post is None:
        post = chat.get("type") == "channel"
    try:
        return _message(raw, chat, post=post)
    except InvalidInput as error:
        name = error.field.removeprefix("metadata.")
        raise InvalidInput(_API_FIELDS.get(name, name), error.problem) from error


def channel_of(chat: Any) -> Channel:
    """Return the Channel of a Bot API Chat object. Raises `InvalidInput`."""
    chat = json_object("chat", chat)
    chat_id: Any = chat.get("id")
    try:
        return Channel(channel_id=chat_id, title=_name(chat), username=chat.get("username"))
    except InvalidInput as error:
        name = "id" if error.field == "channel_id" else error.field
        raise InvalidInput(f"chat.{name}", error.problem) from error


def _message(raw: dict[str, Any], chat: dict[str, Any], *, post: bool) -> Message:
    chat_id: Any = chat.get("id")
    action = _take_action(raw)
    replied = raw.pop("reply_to_message", None)
    replied = None if replied is None else json_object("reply_to_message", replied)
    sender_id, sender_name = _take_sender(raw, chat)
    media = () if action else take_media(raw)
    entities = _take_entities(raw, "entities") + _take_entities(raw, "caption_entities")
    return Message(
        channel_id=chat_id,
        message_id=raw.pop("message_id", None),
        sent_at=_time("date", raw.pop("date", None)),
        edited_at=_time("edit_date", raw.pop("edit_date")) if "edit_date" in raw else None,
        text=raw.pop("text", ""),
        caption=raw.pop("caption", None) or None,
        entities=entities,
        message_type=_message_type(chat, replied, service=bool(action), post=post),
        source=Source.BOT,
        sender_id=sender_id,
        sender_name=sender_name,
        reply_to_id=None if replied is None else replied.get("message_id"),
        thread_id=raw.pop("message_thread_id", None),
        grouped_id=_take_group(raw),
        media=media,
        metadata={**raw, **action},
    )


def _message_type(
    chat: dict[str, Any], replied: dict[str, Any] | None, *, service: bool, post: bool
) -> MessageType:
    if service:
        return MessageType.SERVICE
    if post:
        return MessageType.CHANNEL_POST
    # A channel's posts are forwarded into its discussion group; replies to them are comments.
    if replied and replied.get("is_automatic_forward") and chat.get("type") == "supergroup":
        return MessageType.CHANNEL_POST_COMMENT
    return MessageType.MESSAGE


def _take_action(raw: dict[str, Any]) -> dict[str, Any]:
    """Return what metadata says of a service message's action; nothing for other messages."""
    field = next((key for key in raw if key in _SERVICE), None)
    if field is None:
        return {}
    action = {"action": BOT_ACTIONS.get(field, field)}
    if field == "pinned_message":
        return {**action, "message_id": json_object(field, raw.pop(field)).get("message_id")}
    return action


def _take_sender(raw: dict[str, Any], chat: dict[str, Any]) -> tuple[Any, str | None]:
    """Take who sent it: the chat that speaks, where one does, else the user."""
    user = raw.pop("from", None)
    left = {} if user is None else dict(json_object("from", user))
    speaker = raw.pop("sender_chat", None)
    if speaker is not None:
        speaker = json_object("sender_chat", speaker)
        if left:  # a stand-in such as @GroupAnonymousBot
            raw["from"] = left
        if speaker.get("id") != chat.get("id"):
            raw["sender_chat"] = speaker
        return speaker.get("id"), _name(speaker)
    sender = left.pop("id", None), _name(left)
    left.pop("first_name", None)
    left.pop("last_name", None)
    if left.pop("is_bot", False):
        left["is_bot"] = True
    if left:
        raw["from"] = left
    return sender


def _name(peer: dict[str, Any]) -> str | None:
    if "title" in peer:
        return checks.text("title", peer["title"])
    parts = [checks.text(key, peer[key]) for key in ("first_name", "last_name") if peer.get(key)]
    return " ".join(parts) or None


def _take_entities(raw: dict[str, Any], field: str) -> tuple[Entity, ...]:
    listed = raw.pop(field, None) or ()
    if not isinstance(listed, list | tuple):
        raise InvalidInput(field, f"expected a list, got {type(listed).__name__}")
    entities = []
    for index, item in enumerate(listed):
        where = f"{field}[{index}]"
        item = json_object(where, item)
        user = json_object(f"{where}.user", item["user"]) if "user" in item else {}
        try:
            entities.append(_entity(item, user))
        except InvalidInput as error:
            name = "user.id" if error.field == "user_id" else error.field
            raise InvalidInput(f"{where}.{name}", error.problem) from error
        if not _ENTITY_KEYS.issuperset(item):
            raw[field] = listed
    return tuple(entities)


def _entity(item: Any, user: Any) -> Entity:
    return Entity(
        type=item.get("type"),
        offset=item.get("offset"),
        length=item.get("length"),
        url=item.get("url"),
        user_id=user.get("id"),
        language=item.get("language") or None,
        custom_emoji_id=item.get("custom_emoji_id"),
    )


def _take_group(raw: dict[str, Any]) -> int | None:
    """Take the album's id, which comes as a string of digits; any other string is left."""
    value = raw.get("media_group_id")
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        del raw["media_group_id"]
        return int(value)
    return None


def _time(field: str, value: Any) -> datetime:
    try:
        return datetime.fromtimestamp(checks.integer(field, value), UTC)
    except (ValueError, OverflowError, OSError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(field, f"{shown(value)} is not a time in Unix seconds") from error
