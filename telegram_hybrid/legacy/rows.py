"""One row of the original's messages, and the channel that its text names. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import attrs
import msgspec

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import checks

#: Columns without which nothing can be brought; where one of the others is missing, it counts as
#: NULL.
REQUIRED = ("channel_id", "message_id", "text", "status", "received_at")

#: Columns of messages that are read, and the types that each may have.
_TEXT = ("text", "character varying", "name", "citext")
_INTEGER = ("bigint", "integer", "smallint")
_TIME = ("timestamp with time zone",)
_JSON = ("jsonb", "json")
TYPES: Mapping[str, tuple[str, ...]] = {
    "id": ("uuid", *_TEXT, *_INTEGER),
    "channel_id": (*_TEXT, *_INTEGER),
    "message_id": _INTEGER,
    "thread_id": _INTEGER,
    "source": _TEXT,
    "message_type": _TEXT,
    "text": _TEXT,
    "caption": _TEXT,
    "media_type": _TEXT,
    "media_refs": _JSON,
    "status": _TEXT,
    "metadata": _JSON,
    "telegram_date": _TIME,
    "received_at": _TIME,
    "created_at": _TIME,
    "updated_at": _TIME,
    "queued_at": _TIME,
    "published_at": _TIME,
    "failed_at": _TIME,
    "reprocess_requested_at": _TIME,
    "reprocessed_at": _TIME,
    "deleted_at": _TIME,
}
TIMES = tuple(name for name, types in TYPES.items() if types is _TIME)

_MARKED = re.compile(r"-?[1-9][0-9]{0,15}")


@attrs.frozen(slots=True)
class LegacyRow:
    """One copy of a message. A time that is no time from 1970 to 2100 is None.

    `is_dated` says whether `telegram_date` held anything at all.
    """

    message_id: int
    id: str = ""
    text: str | None = None
    caption: str | None = None
    thread_id: int | None = None
    source: str | None = None
    message_type: str | None = None
    media_type: str | None = None
    media_refs: Any = None
    status: str | None = None
    metadata: Any = None
    is_dated: bool = False
    telegram_date: datetime | None = None
    received_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    queued_at: datetime | None = None
    published_at: datetime | None = None
    failed_at: datetime | None = None
    reprocess_requested_at: datetime | None = None
    reprocessed_at: datetime | None = None
    deleted_at: datetime | None = None


@attrs.frozen(slots=True)
class Unreadable:
    """JSON of the original that we cannot take in, such as a number of 5,000 digits, and why."""

    problem: str


def legacy_row(columns: Iterable[Any]) -> LegacyRow:
    """Return a row of the original, in the order of the fields; its JSON comes as text."""
    values = list(columns)
    for at in _JSON_AT:
        values[at] = _decoded(values[at])
    return LegacyRow(*values)


_JSON_AT = tuple(
    at for at, name in enumerate(attrs.fields_dict(LegacyRow)) if TYPES.get(name) is _JSON
)


def _decoded(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        return Unreadable(str(error))


def channel_of(spelling: str | None, named: Mapping[str, int]) -> int:
    """Return the marked chat id that a text of the original means.

    `named` are those that somebody has told, {text: marked id}; they come first. Raises
    `InvalidInput` for usernames and everything else that is no marked id.
    """
    if spelling is None:
        raise InvalidInput("channel_id", "missing")
    if spelling in named:
        return checks.channel_id(f"channels[{spelling!r}]", named[spelling])
    text = spelling.strip()
    if not _MARKED.fullmatch(text):
        shown = text if len(text) <= 40 else f"{text[:39]}…"
        raise InvalidInput(
            "channel_id",
            f"{shown!r} is no marked chat id, as -1001649127710 is; say which one it means",
        )
    return checks.channel_id("channel_id", int(text))
