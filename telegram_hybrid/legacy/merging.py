"""Of all copies of a message one message: pure functions, no I/O.

The original let one message in several times. What is brought of its copies:

content       that of the copy that arrived last (received_at, then created_at, then id); every
              other text and caption is an earlier one, once each, by first arrival
sent_at       the earliest telegram_date; without any the earliest received_at, else created_at
deletion      a copy that is deleted deletes the message: a redelivery never takes that back; an
              undo goes back to the status that is told beside it
status        else the furthest: received, queued, retrying, failed, published,
              reprocess_pending, reprocessed
times         received_at the earliest, deleted_at the earliest, the others the latest
metadata      that of all copies, the later over the earlier
source        the first one that is known; message_type, thread_id, media: the last

What we have no word for (a status, a source, a type, the rest of media references) is kept under
`metadata["legacy"]`. A status that is none is told by the times beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar

import attrs

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.legacy.media import attachments
from telegram_hybrid.legacy.rows import LegacyRow, Unreadable
from telegram_hybrid.model import Message, MessageType, Source, Status, checks

_E = TypeVar("_E", bound=StrEnum)

#: The order in which statuses win.
_RANK = (
    Status.RECEIVED,
    Status.QUEUED,
    Status.RETRYING,
    Status.FAILED,
    Status.PUBLISHED,
    Status.REPROCESS_PENDING,
    Status.REPROCESSED,
)
#: What a time says of a row whose status says nothing, the strongest first.
_TOLD_BY = (
    ("reprocessed_at", Status.REPROCESSED),
    ("reprocess_requested_at", Status.REPROCESS_PENDING),
    ("published_at", Status.PUBLISHED),
    ("failed_at", Status.FAILED),
    ("queued_at", Status.QUEUED),
)
_LATEST = ("queued_at", "published_at", "failed_at", "reprocess_requested_at", "reprocessed_at")
_NEVER = datetime.min.replace(tzinfo=UTC)


class Notice(StrEnum):
    """What was taken for something else, or supplied; counted in the report."""

    NO_DATE = "telegram_date missing: sent_at is when it was received"
    BAD_DATE = "telegram_date outside 1970 to 2100: sent_at is when it was received"
    STATUS = "unknown status: told by the row's times"
    SOURCE = "unknown source: 'unknown'"
    TYPE = "unknown message_type: 'channel_post'"
    MEDIA = "media_refs say more than attachments hold: the rest is in metadata"
    METADATA = "metadata is no object: kept under 'legacy'"


@attrs.frozen(slots=True)
class Earlier:
    """An earlier content and when its copy was received (None: the original does not say)."""

    text: str
    caption: str | None
    at: datetime | None


@attrs.frozen(slots=True, kw_only=True)
class Merged:
    """One message: `message` has its status, `received_at` and deletion, and no version yet.

    `times` are the columns of its life, `deleted_from` the status before its deletion (None: not
    deleted, or nobody knows); `earlier` its other contents by first arrival; `copies`
    the rows that it was made of.
    """

    message: Message
    times: dict[str, datetime | None]
    deleted_from: Status | None
    earlier: tuple[Earlier, ...]
    notices: frozenset[Notice]
    copies: int


def merge(channel_id: int, copies: Sequence[LegacyRow]) -> Merged:
    """Make one message of its copies, in whatever order they come.

    Raises `InvalidInput` for what the store cannot hold, naming the field.
    """
    rows = sorted(copies, key=_arrival) if len(copies) > 1 else copies
    for row in rows:
        for field in ("metadata", "media_refs"):
            if isinstance(found := getattr(row, field), Unreadable):
                raise InvalidInput(field, found.problem)
    last = rows[-1]
    notices: set[Notice] = set()
    facts: dict[str, Any] = {}
    received_at = _earliest("received_at", rows) or _earliest("created_at", rows)
    sent_at = _earliest("telegram_date", rows)
    if sent_at is None:
        sent_at = received_at
        notices.add(Notice.BAD_DATE if any(row.is_dated for row in rows) else Notice.NO_DATE)
        facts["sent_at"] = "received_at"
    if sent_at is None:
        raise InvalidInput("received_at", "neither this nor another time from 1970 to 2100")
    status = _status(rows, notices, facts)
    deleted_at = _deleted_at(rows, received_at or sent_at)
    media, more = attachments(last.media_type, last.media_refs)
    if more:
        notices.add(Notice.MEDIA)
        facts["media_refs"] = last.media_refs
    metadata = _metadata(rows, notices, facts)
    reason = metadata.get("deletion_reason", metadata.get("delete_reason"))
    message = Message(
        channel_id=channel_id,
        message_id=last.message_id,
        sent_at=sent_at,
        text=last.text or "",
        caption=last.caption,
        message_type=_word(MessageType, "message_type", reversed(rows), Notice.TYPE, notices, facts)
        or MessageType.CHANNEL_POST,
        source=_word(Source, "source", rows, Notice.SOURCE, notices, facts) or Source.UNKNOWN,
        thread_id=_first("thread_id", reversed(rows)),
        media=media,
        metadata={**metadata, "legacy": facts} if facts else metadata,
        status=Status.DELETED if status is None or deleted_at is not None else status,
        received_at=received_at or sent_at,
        deleted_at=deleted_at,
        delete_reason=reason if deleted_at and isinstance(reason, str) else None,
    )
    times = {name: _latest(name, rows) for name in _LATEST}
    times["updated_at"] = _latest("updated_at", rows) or message.received_at
    return Merged(
        message=message,
        times=times,
        deleted_from=status if deleted_at is not None else None,
        earlier=_earlier(rows),
        notices=frozenset(notices),
        copies=len(rows),
    )


def _arrival(row: LegacyRow) -> tuple[datetime, datetime, str]:
    return row.received_at or _NEVER, row.created_at or _NEVER, row.id


def _earlier(rows: Sequence[LegacyRow]) -> tuple[Earlier, ...]:
    """Every content but the last one, once each. Raises `InvalidInput` for an oversized one."""
    if len(rows) == 1:
        return ()
    known = {(rows[-1].text or "", rows[-1].caption)}
    found = []
    for row in rows:
        content = (row.text or "", row.caption)
        if content not in known:
            known.add(content)
            checks.text("text", content[0], most=checks.MAX_TEXT)
            checks.text("caption", content[1] or "", most=checks.MAX_TEXT)
            found.append(Earlier(*content, row.received_at or row.created_at))
    return tuple(found)


def _status(
    rows: Sequence[LegacyRow], notices: set[Notice], facts: dict[str, Any]
) -> Status | None:
    """Return the furthest status that is no deletion, if there is one; times tell unknown ones."""
    found = []
    for row in rows:
        status = _member(Status, row.status)
        if status is Status.DELETED:
            continue
        if status is None:
            notices.add(Notice.STATUS)
            if row.status is not None:
                facts["status"] = row.status
            status = next((of for name, of in _TOLD_BY if getattr(row, name)), Status.RECEIVED)
        found.append(status)
    return max(found, key=_RANK.index) if found else None


def _deleted_at(rows: Sequence[LegacyRow], received_at: datetime) -> datetime | None:
    """Return when the message was deleted, if it was; the status alone says not when."""
    told = _earliest("deleted_at", rows)
    if told is not None:
        return told
    said = [row for row in rows if _member(Status, row.status) is Status.DELETED]
    return (_earliest("updated_at", said) or received_at) if said else None


def _metadata(
    rows: Sequence[LegacyRow], notices: set[Notice], facts: dict[str, Any]
) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for row in rows:
        if isinstance(row.metadata, dict):
            merged |= row.metadata
        elif row.metadata is not None:
            notices.add(Notice.METADATA)
            facts["metadata"] = row.metadata
    if facts and "legacy" in merged:
        facts["legacy"] = merged.pop("legacy")
    return merged


def _word(
    kind: type[_E],
    field: str,
    rows: Iterable[LegacyRow],
    notice: Notice,
    notices: set[Notice],
    facts: dict[str, Any],
) -> _E | None:
    """Return the first word of ours among the rows; note one that is none of ours."""
    found = None
    for row in rows:
        text = getattr(row, field)
        word = _member(kind, text)
        if word is None and text is not None:
            notices.add(notice)
            facts[field] = text
        found = found if found is not None and found != "unknown" else word or found
    return found


@lru_cache(maxsize=1024)
def _member(kind: type[_E], text: str | None) -> _E | None:
    """Return the member that a text means; case and blanks around it say nothing."""
    try:
        return kind((text or "").strip().lower())
    except ValueError:
        return None


def _first(field: str, rows: Iterable[LegacyRow]) -> Any:
    return next((value for row in rows if (value := getattr(row, field)) is not None), None)


def _earliest(field: str, rows: Sequence[LegacyRow]) -> datetime | None:
    return _most(min, field, rows)


def _latest(field: str, rows: Sequence[LegacyRow]) -> datetime | None:
    return _most(max, field, rows)


def _most(
    choose: Callable[[list[datetime]], datetime], field: str, rows: Sequence[LegacyRow]
) -> datetime | None:
    if len(rows) == 1:  # nearly always
        alone: datetime | None = getattr(rows[0], field)
        return alone
    found = [value for value in map(attrgetter(field), rows) if value is not None]
    return choose(found) if found else None
