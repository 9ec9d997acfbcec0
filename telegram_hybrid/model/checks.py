"""Validators of the model: each refuses one kind of bad value and names its field (P10)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timezone
from enum import StrEnum
from math import isfinite
from typing import Any, TypeVar

import msgspec

from telegram_hybrid.errors import InvalidInput

_E = TypeVar("_E", bound=StrEnum)
_T = TypeVar("_T")

#: Telegram's ids fit 52 bits (Bot API, "at most 52 significant bits").
MAX_ID = 2**52
#: Characters of one text. Telegram allows 4,096; the rest is room for other sources.
MAX_TEXT = 65_536
#: Characters of a name, title, url or other short string.
MAX_SHORT = 4_096
#: Bytes of one metadata object, or of the payload of an event of your own, as JSON.
MAX_METADATA = 262_144
#: Levels of arrays and objects within each other in such JSON: what is stored at one depth of calls
#: is read at another, and Python's limit is for both together.
MAX_DEPTH = 256
#: Bytes of a topic: a routing key of AMQP has at most 255.
MAX_TOPIC = 200

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)


def channel_id(field: str, value: Any) -> int:
    """Accept a marked chat id: any non-zero integer below 2**52 in size."""
    if type(value) is int and value and -MAX_ID < value < MAX_ID:  # nearly always, and often
        return value
    number = integer(field, value)
    if number == 0 or abs(number) >= MAX_ID:
        raise InvalidInput(field, f"{number} is not a Telegram chat id (non-zero, below 2**52)")
    return number


def message_id(field: str, value: Any) -> int:
    """Accept a message id: 0 up to 2**52 - 1."""
    if type(value) is int and 0 <= value < MAX_ID:  # nearly always, and often
        return value
    number = integer(field, value)
    if not 0 <= number < MAX_ID:
        raise InvalidInput(field, f"{number} is not a Telegram message id (0 to 2**52 - 1)")
    return number


def message_ids(field: str, values: Any) -> list[int]:
    """Accept message ids; the field of a bad one is named `field[index]`."""
    found = list(iterable(field, values))
    if not found or (set(map(type, found)) == {int} and 0 <= min(found) <= max(found) < MAX_ID):
        return found
    return [message_id(f"{field}[{index}]", value) for index, value in enumerate(found)]


def count(field: str, value: Any, *, least: int = 0, most: int = MAX_ID) -> int:
    """Accept a size, offset, limit or number of things: `least` up to `most`."""
    number = integer(field, value)
    if not least <= number <= most:
        raise InvalidInput(field, f"{number} is outside {least} to {most}")
    return number


def iterable(field: str, value: Any) -> Iterator[Any]:
    """Accept whatever can be iterated over, and return its iterator."""
    try:
        return iter(value)
    except TypeError:
        problem = f"expected an iterable, got {type(value).__name__}"
    raise InvalidInput(field, problem)


def integer(field: str, value: Any) -> int:
    """Accept an int, but no bool, float or digit string: those hide mistakes."""
    if type(value) is not int:
        raise InvalidInput(field, f"expected an integer, got {type(value).__name__}")
    if value.bit_length() > 128:  # Python does not even write it out for the message
        raise InvalidInput(field, f"an integer of {value.bit_length():,} bits")
    return value


def seconds(field: str, value: Any) -> float:
    """Accept a duration: 0 up to some thirty years."""
    if type(value) not in (int, float):
        raise InvalidInput(field, f"expected a number of seconds, got {type(value).__name__}")
    if not 0 <= value < 1e9:
        raise InvalidInput(field, "outside 0 to 1e9 seconds")
    return float(value)


def bigint(field: str, value: Any) -> int:
    """Accept an integer that a 64-bit column can hold."""
    number = integer(field, value)
    if abs(number) >= 2**63:
        raise InvalidInput(field, f"{number} does not fit 64 bits")
    return number


def instant(field: str, value: Any) -> datetime:
    """Accept an aware datetime from 1970 to 2100 and return it in UTC."""
    if not isinstance(value, datetime):
        raise InvalidInput(field, f"expected a datetime, got {type(value).__name__}")
    if value.tzinfo is timezone.utc:  # noqa: UP017  (the common case, spelled for identity)
        aware = value
    elif value.utcoffset() is None:
        raise InvalidInput(field, "naive datetime; give it a timezone, for example tzinfo=UTC")
    else:
        try:
            aware = value.astimezone(UTC)
        except OverflowError:  # within a day of the years 1 and 9999
            raise InvalidInput(field, f"{value.isoformat()} is outside 1970 to 2100") from None
    if not EARLIEST <= aware < LATEST:
        raise InvalidInput(field, f"{aware.isoformat()} is outside 1970 to 2100")
    return aware


def text(field: str, value: Any, *, most: int = MAX_SHORT) -> str:
    """Accept a string that PostgreSQL and UTF-8 can hold: no NUL, no lone surrogate."""
    if type(value) is not str:
        raise InvalidInput(field, f"expected a string, got {type(value).__name__}")
    if len(value) > most:
        raise InvalidInput(field, f"{len(value):,} characters; at most {most:,} are stored")
    if "\0" in value:
        raise InvalidInput(field, f"NUL character at position {value.index(chr(0))}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(field, f"lone surrogate at position {error.start}") from error
    return value


_TOPIC = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", re.ASCII)
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{1,200})?"
)


def topic(field: str, value: Any) -> str:
    """Accept a topic of your own: words of ASCII letters, digits, "_" and "-" between dots.

    "message", "telegram", "unreadable", and what begins with one of them and a dot, are taken.
    """
    name = text(field, value)
    if not _TOPIC.fullmatch(name) or len(name) > MAX_TOPIC:
        raise InvalidInput(
            field,
            f"{name[:50]!r} is no topic: words of letters, digits, _ and - between dots, as in "
            f"'orders.opened'; at most {MAX_TOPIC} bytes",
        )
    if name.partition(".")[0] in ("message", "telegram", "unreadable"):
        raise InvalidInput(field, f"{name!r} begins with a word of ours; take another one")
    return name


def traceparent(field: str, value: Any) -> str:
    """Accept a traceparent (W3C Trace Context, "traceparent Header")."""
    if type(value) is not str or not _TRACEPARENT.fullmatch(value):
        raise InvalidInput(field, "not a W3C traceparent, as in '00-<32 hex>-<16 hex>-01'")
    return value


def member(kind: type[_E], field: str, value: Any) -> _E:
    """Accept a member of `kind`, or the string of one."""
    if type(value) is kind:
        return value
    try:
        return kind(value)
    except ValueError as error:
        raise InvalidInput(field, f"{value!r} is none of {', '.join(kind)}") from error


def tuple_of(kind: type[_T], field: str, value: Any) -> tuple[_T, ...]:
    """Accept a tuple or list whose items are all of `kind`."""
    if not isinstance(value, tuple | list):
        raise InvalidInput(field, f"expected a tuple, got {type(value).__name__}")
    for index, item in enumerate(value):
        if type(item) is not kind:
            raise InvalidInput(
                f"{field}[{index}]", f"expected {kind.__name__}, got {type(item).__name__}"
            )
    return tuple(value)


def json_object(field: str, value: Any) -> dict[str, Any]:
    """Accept a JSON object and return a copy of pure JSON values, free of NUL and NaN."""
    if not isinstance(value, dict):
        raise InvalidInput(field, f"expected an object, got {type(value).__name__}")
    if not value:
        return {}
    try:
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(field, f"not JSON: {error}") from error
    if len(encoded) > MAX_METADATA:
        raise InvalidInput(field, f"{len(encoded):,} bytes of JSON; at most {MAX_METADATA:,}")
    if encoded.count(b"[") + encoded.count(b"{") > MAX_DEPTH and _depth(encoded) > MAX_DEPTH:
        raise InvalidInput(field, f"more than {MAX_DEPTH} levels within each other")
    copy: dict[str, Any] = msgspec.json.decode(encoded)
    if b"\\u0000" in encoded:
        refuse_nul(field, copy)
    if b"null" in encoded:
        refuse_nan(field, value)
    return copy


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')


def _depth(encoded: bytes) -> int:
    """How many arrays and objects are open at once, at most."""
    depth = deepest = 0
    for sign in _STRING.sub(b"", encoded):
        if sign in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in b"]}":
            depth -= 1
    return deepest


def refuse_nan(field: str, value: Any) -> None:
    """Raise for the first float within `value` that JSON does not have, naming the path to it."""
    if isinstance(value, float) and not isfinite(value):
        raise InvalidInput(field, f"{value} is not JSON")
    if isinstance(value, dict):
        for key, item in value.items():
            refuse_nan(f"{field}.{key}", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            refuse_nan(f"{field}[{index}]", item)


def refuse_nul(field: str, value: Any) -> None:
    """Raise for the first string within `value` that holds a NUL, naming the path to it."""
    if isinstance(value, str):
        text(field, value, most=MAX_METADATA)
    elif isinstance(value, dict):
        for key, item in value.items():
            text(field, key)
            refuse_nul(f"{field}.{key}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            refuse_nul(f"{field}[{index}]", item)
