"""Values in Redis: JSON with the row version first, readable from redis-cli and other languages.

    message  {"version":17,"schema":1,"message":{...}}                 as Message.to_json
    window   {"version":19,"schema":1,"lo":3,"hi":9,"complete":false,"messages":[{...},...]}
    seen     {"version":0,"schema":1,"seen":true}

A decoder answers None to everything it cannot vouch for (garbage, another key's value, a schema
id of the future): the caller treats that as a miss. An encoder answers None to what is too big.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import attrs
import msgspec

from telegram_hybrid.model import Message

#: Raise it when a reader of the old shape would misread the new one.
SCHEMA = 1
#: Bytes of one value. Longer ones are neither stored nor decoded, so that a foreign blob costs
#: no parsing; the largest message the model allows (two texts, metadata) stays below.
MAX_BYTES = 4 * 1024 * 1024
#: A flag of ours. Anything else under a seen key proves nothing: the original system set its
#: flags before the work was safe.
SEEN = b'{"version":0,"schema":1,"seen":true}'


@attrs.frozen(slots=True)
class Window:
    """The newest messages of a channel that are not deleted, newest first by message_id.

    It holds every such message from `lo` to `hi`, its lowest and highest id, and beyond: nothing
    was stored above `hi`, and nothing below `lo` if `complete`. An empty window is complete, with
    `lo` and `hi` 0. `version` is the highest row version in it: information, not a guard, because
    rows with lower versions may commit later.
    """

    messages: tuple[Message, ...]
    complete: bool
    version: int
    lo: int
    hi: int

    @classmethod
    def of(cls, messages: Sequence[Message], size: int) -> Window:
        """Build it from the newest `size` messages of a channel, newest first, none deleted.

        Fewer than `size` means that the channel has no more.
        """
        return cls(
            messages=tuple(messages),
            complete=len(messages) < size,
            version=max((message.version for message in messages), default=0),
            lo=messages[-1].message_id if messages else 0,
            hi=messages[0].message_id if messages else 0,
        )


class _StoredMessage(msgspec.Struct, frozen=True):
    schema: Literal[1]
    version: int
    message: Message


class _StoredWindow(msgspec.Struct, frozen=True):
    schema: Literal[1]
    version: int
    lo: int
    hi: int
    complete: bool
    messages: list[Message]


_MESSAGE = msgspec.json.Decoder(_StoredMessage)
_WINDOW = msgspec.json.Decoder(_StoredWindow)
# DecodeError covers the model's own refusals (InvalidInput is a ValueError, which msgspec wraps).
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encode_message(message: Message) -> bytes | None:
    """Encode one message; None if it is longer than `MAX_BYTES`."""
    return _within_bounds(
        b'{"version":%d,"schema":%d,"message":%b}' % (message.version, SCHEMA, message.to_json())
    )


def decode_message(data: bytes, channel_id: int, message_id: int) -> Message | None:
    """Decode the message of that key; None if `data` is anything else."""
    if len(data) > MAX_BYTES:
        return None
    try:
        stored = _MESSAGE.decode(data)
    except _UNDECODABLE:
        return None
    message = stored.message
    ours = (
        message.message_id == message_id
        and message.channel_id == channel_id
        and message.version == stored.version
    )
    return message if ours else None


def encode_window(window: Window) -> bytes | None:
    """Encode a window; None if it is longer than `MAX_BYTES`."""
    return _within_bounds(
        b'{"version":%d,"schema":%d,"lo":%d,"hi":%d,"complete":%b,"messages":[%b]}'
        % (
            window.version,
            SCHEMA,
            window.lo,
            window.hi,
            b"true" if window.complete else b"false",
            b",".join(message.to_json() for message in window.messages),
        )
    )


def decode_window(data: bytes, channel_id: int) -> Window | None:
    """Decode the window of that channel; None if `data` is anything else or contradicts itself."""
    if len(data) > MAX_BYTES:
        return None
    try:
        stored = _WINDOW.decode(data)
    except _UNDECODABLE:
        return None
    messages = stored.messages
    window = Window(tuple(messages), stored.complete, stored.version, stored.lo, stored.hi)
    ids = [message.message_id for message in messages]
    sound = (
        all(above > below for above, below in pairwise(ids))
        and all(message.channel_id == channel_id for message in messages)
        and window == attrs.evolve(Window.of(messages, 0), complete=stored.complete)
        and (stored.complete or bool(messages))
    )
    return window if sound else None


def _within_bounds(data: bytes) -> bytes | None:
    return data if len(data) <= MAX_BYTES else None
