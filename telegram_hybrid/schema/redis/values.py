"""Values in Redis: JSON with the version first, readable from redis-cli and other languages.

    message  {"version":17,"schema":1,"until":1793000000.123,"cost":0.002,"message":{...}}
    absent   {"version":0, ... ,"message":null}                      no such message is stored
    run      {"version":19, ... ,"lo":3,"hi":9,"complete":false,"messages":[
             {...},
             {...}
             ]}                                                      a head window or a page
    seen     {"version":0,"schema":1,"seen":true}
    result   {"version":0,"schema":1,"generations":["c0ffee"],"result":...}

The version of a message is its row's; that of a run is its channel's, the highest that any commit
had given to a row of the channel. `until` is when the value should be gone (Unix seconds), `cost`
how long it took to load (seconds): what a reader needs to refresh it early. Messages stand one a
line, newest first, so that a script can patch a window, and a reader find the messages that it
wants, without parsing it.

A decoder answers None to everything it cannot vouch for (garbage, another key's value, a schema
id of the future): the caller treats that as a miss. An encoder answers None to what is too big.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal

import attrs
import msgspec

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Message
from telegram_hybrid.schema.redis.decoding import decode

#: Raise it when a reader of the old shape would misread the new one.
SCHEMA = 1
#: Bytes of one value. Longer ones are neither stored nor decoded, so that a foreign blob costs
#: no parsing; the largest message the model allows (two texts, metadata) stays below.
MAX_BYTES = 4 * 1024 * 1024
#: A flag of ours. Anything else under a seen key proves nothing: the original system set its
#: flags before the work was safe.
SEEN = b'{"version":0,"schema":1,"seen":true}'
#: Message ids in one page: page n holds those from n * PAGE up to the next one. No more than
#: messages in a window, unless that was made smaller: then nothing is between it and the last page
#: that is below the one which the newest message is in.
PAGE = 100


class Life(msgspec.Struct, frozen=True):
    """Until when a value should live (Unix seconds), and how many seconds its load took."""

    until: float
    cost: float


class Cached(Life, frozen=True):
    """A message as it was cached; None if what was cached is that there is none."""

    message: Message | None


class _StoredMessage(Life, frozen=True):
    schema: Literal[1]
    version: int
    message: msgspec.Raw


@attrs.frozen(slots=True)
class Window:
    """A run of a channel's messages that are not deleted, newest first by message_id.

    It holds every such message with an id from `lo` on, and below too if `complete`. Nothing was
    stored above `hi`, its highest id, when the channel was at `version`.
    """

    messages: tuple[Message, ...]
    complete: bool
    version: int
    lo: int
    hi: int

    @classmethod
    def of(cls, messages: Sequence[Message], size: int, version: int) -> Window:
        """Build it from the newest `size` messages of a channel, newest first, none deleted.

        Fewer than `size` means that the channel has no more. `version` is the channel's, read
        before the messages.
        """
        return cls(
            messages=tuple(messages),
            complete=len(messages) < size,
            version=version,
            lo=messages[-1].message_id if messages else 0,
            hi=messages[0].message_id if messages else 0,
        )

    @classmethod
    def page(cls, number: int, messages: Sequence[Message], version: int) -> Window:
        """Build page `number` from all its messages, newest first, none deleted."""
        lo = number * PAGE
        return cls(tuple(messages), False, version, lo, lo + PAGE - 1)

    def after(self, message_id: int, limit: int) -> list[Message]:
        """Return its first `limit` messages above `message_id`, ascending."""
        newer = (one for one in reversed(self.messages) if one.message_id > message_id)
        return list(islice(newer, limit))


class Undecodable(ValueError):
    """A stored value is none of ours, or contradicts itself where it was looked at."""


class Run:
    """A stored run of messages, opened: a message of it is decoded when it is asked for.

    Decoding takes nearly all the time of a read, finding a message next to nothing. Nobody vouches
    for messages that were not asked for. Raises `Undecodable`, here and in each method.
    """

    __slots__ = ("_begin", "_channel", "_data", "_end", "complete", "hi", "life", "lo", "version")

    def __init__(self, data: bytes, channel_id: int) -> None:
        begin = data.find(b"\n") + 1
        if len(data) > MAX_BYTES or not (
            data.endswith(_OPENING, 0, begin) and data.endswith(_CLOSING)
        ):
            raise Undecodable("it is not laid out as a run")
        try:
            head = _HEAD.decode(data[:begin] + b"]}")
        except _UNDECODABLE as error:
            raise Undecodable("it has no head of ours") from error
        self._data, self._channel = data, channel_id
        # Each line between ends with a newline.
        self._begin, self._end = begin, len(data) - 2
        if data.startswith(_CLOSING, begin):
            self._end = begin
        self.life = Life(head.until, head.cost)
        self.version, self.complete = head.version, head.complete
        self.lo, self.hi = head.lo, head.hi
        if self._begin < self._end:
            last = data.rfind(b"\n", 0, self._end - 1) + 1
            if self._id(last) < self.lo or self._id(begin) > self.hi:
                raise Undecodable("a message is outside of its bounds")

    @classmethod
    def of_page(cls, data: bytes, channel_id: int, number: int) -> Run:
        """Open what is stored as page `number`."""
        run, lo = cls(data, channel_id), number * PAGE
        if (run.lo, run.hi) != (lo, lo + PAGE - 1):
            raise Undecodable("it is another page")
        return run

    def newest(self, limit: int | None = None) -> Window:
        """Decode its newest `limit` messages, or all: a window that knows of no others."""
        at, lines = self._begin, list[bytes]()
        while at < self._end and len(lines) != limit:
            end = self._data.index(b"\n", at) + 1
            lines.append(self._line(at, end))
            at = end
        messages = self._decoded(lines)
        if at == self._end:
            return Window(messages, self.complete, self.version, self.lo, self.hi)
        lo = messages[-1].message_id if messages else self.hi + 1
        return Window(messages, False, self.version, lo, self.hi)

    def after(self, message_id: int, limit: int) -> list[Message]:
        """Decode its first `limit` messages above `message_id`, ascending."""
        begin, end = self._begin, self._end  # of the lines that may be its first one, or below it
        while begin < end:
            middle = (begin + end) // 2
            at = self._data.rfind(b"\n", 0, middle) + 1
            if self._id(at) > message_id:
                begin = self._data.index(b"\n", middle) + 1
            else:
                end = at
        lines = list[bytes]()
        while self._begin < end and len(lines) < limit:
            at = self._data.rfind(b"\n", 0, end - 1) + 1
            lines.append(self._line(at, end))
            end = at
        return list(self._decoded(lines[::-1])[::-1])

    def _id(self, at: int) -> int:
        """Of the message whose line begins there."""
        found = _MESSAGE_ID(self._data, at)
        if found is None:
            raise Undecodable("a line is no message")
        return int(found[1])

    def _line(self, begin: int, end: int) -> bytes:
        """The message between two lines' beginnings; a comma follows each but the last one."""
        return self._data[begin : end - (1 if end == self._end else 2)]

    def _decoded(self, lines: Sequence[bytes]) -> tuple[Message, ...]:
        """Decode lines that follow each other."""
        try:
            messages = tuple(map(decode, lines))
        except _UNDECODABLE as error:
            raise Undecodable("a message cannot be decoded") from error
        ids = [message.message_id for message in messages]
        if ids and not (
            ids == sorted(set(ids), reverse=True)
            and {message.channel_id for message in messages} == {self._channel}
            and self.lo <= ids[-1]
            and ids[0] <= self.hi
        ):
            raise Undecodable("its messages contradict it")
        return messages


class _Head(Life, frozen=True):
    schema: Literal[1]
    version: int
    lo: int
    hi: int
    complete: bool


class _StoredResult(msgspec.Struct, frozen=True):
    schema: Literal[1]
    generations: list[str]
    result: msgspec.Raw


_RESULT = msgspec.json.Decoder(_StoredResult)
_MESSAGE = msgspec.json.Decoder(_StoredMessage)
_HEAD = msgspec.json.Decoder(_Head)
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidInput)
#: How the first line of a run ends, and the last ones. No string of JSON contains a newline.
_OPENING, _CLOSING = b'"messages":[\n', b"\n]}"
_MESSAGE_ID = re.compile(rb'\{"channel_id":-?\d+,"message_id":(\d{1,19})[,}]').match


def encode_message(message: Message, life: Life) -> bytes | None:
    """Encode one message; None if it is longer than `MAX_BYTES`."""
    return _within_bounds(_head(message.version, life) + b'"message":%b}' % message.to_json())


def encode_absence(life: Life) -> bytes:
    """Encode that there is no such message."""
    return _head(0, life) + b'"message":null}'


def decode_message(data: bytes, channel_id: int, message_id: int) -> Cached | None:
    """Decode what is cached of that message; None if `data` is anything else."""
    if len(data) > MAX_BYTES:
        return None
    try:
        stored = _MESSAGE.decode(data)
        said = bytes(stored.message)
        message = None if said == b"null" else decode(said)
    except _UNDECODABLE:
        return None
    ours = message is None or (
        message.message_id == message_id
        and message.channel_id == channel_id
        and message.version == stored.version
    )
    return Cached(stored.until, stored.cost, message) if ours else None


def encode_window(window: Window, life: Life) -> bytes | None:
    """Encode a run of messages; None if it is longer than `MAX_BYTES`."""
    return _within_bounds(
        _head(window.version, life)
        + b'"lo":%d,"hi":%d,"complete":%b,"messages":[\n%b\n]}'
        % (
            window.lo,
            window.hi,
            b"true" if window.complete else b"false",
            b",\n".join(message.to_json() for message in window.messages),
        )
    )


def decode_window(
    data: bytes, channel_id: int, limit: int | None = None
) -> tuple[Window, Life] | None:
    """Decode a run of that channel, or its newest `limit` messages.

    None if `data` is anything else, or contradicts itself there.
    """
    try:
        run = Run(data, channel_id)
        return run.newest(limit), run.life
    except Undecodable:
        return None


def encode_query(result: Any) -> bytes:
    """Encode what a query gave. Raises TypeError for what JSON cannot say."""
    return msgspec.json.encode(result)


def encode_result(body: bytes, generations: Sequence[bytes]) -> bytes | None:
    """Encode a query's result, which is JSON; None if it is longer than `MAX_BYTES`."""
    named = msgspec.json.encode(
        [generation.decode("ascii", "replace") for generation in generations]
    )
    return _within_bounds(
        b'{"version":0,"schema":%d,"generations":%b,"result":%b}' % (SCHEMA, named, body)
    )


def decode_result(data: bytes, generations: Sequence[bytes]) -> bytes | None:
    """Return a query's result, which is JSON, if it is one of these generations; else None."""
    if len(data) > MAX_BYTES:
        return None
    try:
        stored = _RESULT.decode(data)
        msgspec.json.decode(stored.result)
    except _UNDECODABLE:
        return None
    ours = stored.generations == [one.decode("ascii", "replace") for one in generations]
    return bytes(stored.result) if ours else None


def _head(version: int, life: Life) -> bytes:
    return b'{"version":%d,"schema":%d,"until":%.3f,"cost":%.6f,' % (
        version,
        SCHEMA,
        life.until,
        life.cost,
    )


def _within_bounds(data: bytes) -> bytes | None:
    return data if len(data) <= MAX_BYTES else None
