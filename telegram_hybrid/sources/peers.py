"""Peers of a Desktop export: bare ids and "channel123" become marked chat ids.

Marked (Bot API): users as they are, basic groups negative, channels and supergroups -100 before
the digits. Exports older than April 2021 write the peer kind into bits 32 and up of an id, and
`from_id` as an integer (tdesktop commit 4625e7613b, kUserPeerIdShift, kChatPeerIdShift).
"""

from __future__ import annotations

import re
from reprlib import repr as shown
from typing import Any

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import checks

_CHANNELS = ("private_channel", "public_channel")
_SUPERGROUPS = ("private_supergroup", "public_supergroup")
_PERSONS = ("personal_chat", "bot_chat", "saved_messages", "replies", "verification_codes")
_GROUPS = ("private_group",)
_PEER = re.compile(r"(user|chat|channel)(\d{1,19})")
_OLD_USER, _OLD_CHAT, _OLD_END = 1 << 32, 2 << 32, 3 << 32
_CHANNEL_BASE = 1_000_000_000_000

#: All chat types that Telegram Desktop writes.
CHAT_TYPES = _CHANNELS + _SUPERGROUPS + _GROUPS + _PERSONS


def is_channel(chat_type: str) -> bool:
    """Tell whether messages of this chat type are channel posts."""
    return chat_type in _CHANNELS


def marked_channel(bare: int) -> int:
    """Return the marked id of a channel or supergroup: -100 before the digits."""
    return -_CHANNEL_BASE - bare


def marked_chat(chat_id: Any, chat_type: Any, *, old: bool = False) -> int:
    """Return the marked id of an export's chat.

    A negative id is marked already. Raises `InvalidInput` naming `id` or `type`.
    """
    number = checks.channel_id("id", chat_id)
    if number < 0:
        return number
    if old and _OLD_USER <= number < _OLD_END:
        number &= 0xFFFFFFFF
    if chat_type in _CHANNELS or chat_type in _SUPERGROUPS:
        return checks.channel_id("id", marked_channel(number))
    if chat_type in _GROUPS:
        return -number
    if chat_type in _PERSONS:
        return number
    raise InvalidInput("type", f"{shown(chat_type)} is none of {', '.join(CHAT_TYPES)}")


def has_old_ids(chat_id: Any, message: dict[str, Any]) -> bool:
    """Tell from a message whether its export writes peer kinds into the bits of ids."""
    peer = message.get("from_id", message.get("actor_id"))
    return (
        type(chat_id) is int
        and _OLD_USER <= chat_id < _OLD_END
        and not isinstance(peer, str)
        and "date_unixtime" not in message
    )


def sender(field: str, value: Any, *, chat_id: int) -> int | None:
    """Return the marked id of "user12", "chat12", "channel12" or an old integer; None if empty."""
    if value is None or value == "":
        return None
    if type(value) is int:
        bare = value & 0xFFFFFFFF
        if _OLD_CHAT <= value < _OLD_END:  # a basic group speaks only as itself
            return chat_id if chat_id == -bare else marked_channel(bare)
        return bare if _OLD_USER <= value < _OLD_CHAT else value
    if not isinstance(value, str) or not (match := _PEER.fullmatch(value)):
        raise InvalidInput(field, f"{shown(value)} is no peer such as 'user123' or 'channel123'")
    number = int(match[2])
    if match[1] == "channel":
        return marked_channel(number)
    return number if match[1] == "user" else -number
