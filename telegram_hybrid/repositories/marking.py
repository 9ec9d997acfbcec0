"""The life of stored messages, inside a transaction: statuses, deletions and their undoing.

As every write: lock the channel, read what is there, decide, write, announce.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import attrs

from telegram_hybrid.errors import ClaimLost, NotFound, TooManyDeletions
from telegram_hybrid.model import EventType, Message, MessageKey, Status
from telegram_hybrid.repositories.batches import ROWS
from telegram_hybrid.repositories.decisions import WAITING, check_transition
from telegram_hybrid.repositories.writing import Writer
from telegram_hybrid.schema.postgres.sql import array

_T = TypeVar("_T")

# The ids and a range of times as values as well: then only their partitions are opened.
_THESE = """
FROM unnest(
    CAST(:message_ids AS bigint[]), CAST(:statuses AS text[]), CAST(:versions AS bigint[])
) AS step (message_id, status, version)
WHERE message.channel_id = :channel_id AND message.message_id = step.message_id
  AND message.message_id = ANY(CAST(:message_ids AS bigint[]))
  AND message.sent_at BETWEEN :first AND :last
RETURNING message.message_id, message.status, message.deleted_at
"""

# A deletion leaves what was said with the status before it, which an undo brings back.
_MARK = """
UPDATE "{schema}".messages AS message SET
    status = step.status, version = step.version, updated_at = now(),
    queued_at = CASE step.status WHEN 'queued' THEN now() ELSE queued_at END,
    published_at = CASE step.status WHEN 'published' THEN now() ELSE published_at END,
    failed_at = CASE step.status WHEN 'failed' THEN now() ELSE failed_at END,
    reprocess_requested_at =
        CASE step.status WHEN 'reprocess_pending' THEN now() ELSE reprocess_requested_at END,
    reprocessed_at = CASE step.status WHEN 'reprocessed' THEN now() ELSE reprocessed_at END,
    deleted_at = CASE step.status WHEN 'deleted' THEN now() END,
    delete_reason = CASE step.status WHEN 'deleted' THEN CAST(:reason AS text) END,
    status_reason =
        CASE step.status WHEN 'deleted' THEN status_reason ELSE CAST(:reason AS text) END
{these}
""".replace("{these}", _THESE)

# What was deleted before `deleted_from` was kept goes back to the last status that has a time.
_RESTORE = """
UPDATE "{schema}".messages AS message SET
    status = coalesce(deleted_from,
        CASE greatest(queued_at, published_at, failed_at, reprocess_requested_at, reprocessed_at)
            WHEN reprocessed_at THEN 'reprocessed'
            WHEN reprocess_requested_at THEN 'reprocess_pending'
            WHEN published_at THEN 'published'
            WHEN failed_at THEN 'failed'
            WHEN queued_at THEN 'queued'
            ELSE 'received'
        END),
    version = step.version, updated_at = now(), deleted_at = NULL, delete_reason = NULL
{these}
""".replace("{these}", _THESE)


@attrs.frozen(slots=True)
class _Found:
    """A stored message, and the version that it has if it is changed."""

    message: Message
    version: int


class Marker:
    """Marks, deletes and restores messages of one channel by its transaction's writer."""

    def __init__(self, writer: Writer, channel_id: int) -> None:
        self._writer = writer
        self._channel_id = channel_id

    def mark(
        self, statuses: Mapping[int, Status], reason: str | None, *, claimed: bool = False
    ) -> dict[int, Message]:
        """Move messages to their statuses, all or none, and return them as they are then.

        Raises `NotFound`, and `IllegalTransition` for a step that is not allowed; of those that
        are `claimed`, `ClaimLost` for what does not wait any more. A claim that began beside the
        change of a status, before that was committed, outlives it: nobody could see the other.
        """
        self._writer.lock({self._channel_id}, unbounded=True)
        found: dict[int, _Found] = {}
        for ids in _chunks(list(statuses)):
            found |= self._find(ids)
        if missing := [number for number in statuses if number not in found]:
            raise NotFound(self._not_stored(missing))
        if claimed and (
            lost := [
                each.message.key for each in found.values() if each.message.status not in WAITING
            ]
        ):
            raise ClaimLost(lost)
        steps = [
            (found[number], status)
            for number, status in statuses.items()
            if check_transition(found[number].message, status)
        ]
        after = {number: item.message for number, item in found.items()}
        for chunk in _chunks(steps):
            after |= self._apply(_MARK, chunk, reason)
        return after

    def delete(self, ids: Sequence[int], reason: str | None, at_most: int | None) -> set[int]:
        """Delete those that are stored and not yet deleted, and return their ids.

        Raises `TooManyDeletions`, before anything is deleted, if they are more than `at_most`.
        """
        self._writer.lock({self._channel_id}, unbounded=True)
        gone: set[int] = set()
        waiting: list[tuple[_Found, Status]] = []
        for chunk in _chunks(ids):
            found = self._find(chunk).values()
            waiting += [(each, Status.DELETED) for each in found if not each.message.deleted_at]
            if at_most is None:
                gone |= self._apply(_MARK, waiting, reason).keys()
                waiting = []
            elif len(waiting) > at_most:
                raise TooManyDeletions(self._channel_id, at_most)
        for steps in _chunks(waiting):
            gone |= self._apply(_MARK, steps, reason).keys()
        return gone

    def restore(self, ids: Sequence[int]) -> dict[int, Message]:
        """Undo the deletion of those that are deleted, and return them as they are then."""
        self._writer.lock({self._channel_id}, unbounded=True)
        after: dict[int, Message] = {}
        for chunk in _chunks(ids):
            deleted = [
                # The statement says to which status: only the database knows the one before.
                (item, Status.DELETED)
                for item in self._find(chunk).values()
                if item.message.deleted_at is not None
            ]
            after |= self._apply(_RESTORE, deleted, None)
        return after

    def restore_one(self, number: int) -> Message:
        """Undo its deletion, if it is deleted, and return it. Raises `NotFound`."""
        after = self.restore([number])
        key = MessageKey(self._channel_id, number)
        if number not in after and (message := self._writer.stored([key]).get(key)) is not None:
            return message
        if number not in after:
            raise NotFound(self._not_stored([number]))
        return after[number]

    def _find(self, ids: Sequence[int]) -> dict[int, _Found]:
        keys = [MessageKey(self._channel_id, number) for number in ids]
        slots = self._writer.slots(keys)
        stored = self._writer.stored(keys)
        return {
            key.message_id: _Found(stored[key], slot.version)
            for key, slot in zip(keys, slots, strict=True)
            if key in stored
        }

    def _not_stored(self, ids: Sequence[int]) -> str:
        others = f" and {len(ids) - 1:,} others of {{}} are" if len(ids) > 1 else " of {} is"
        return f"message {ids[0]}{others.format(f'channel {self._channel_id}')} not stored"

    def _apply(
        self, statement: str, steps: Sequence[tuple[_Found, Status]], reason: str | None
    ) -> dict[int, Message]:
        """Write the steps by one statement, and announce them by another."""
        if not steps:
            return {}
        rows = self._writer.execute(
            statement,
            channel_id=self._channel_id,
            message_ids=array(found.message.message_id for found, _ in steps),
            statuses="{" + ",".join(status.value for _, status in steps) + "}",
            versions=array(found.version for found, _ in steps),
            first=min(found.message.sent_at for found, _ in steps),
            last=max(found.message.sent_at for found, _ in steps),
            **({"reason": reason} if statement is _MARK else {}),
        )
        written = {number: (Status(status), deleted_at) for number, status, deleted_at in rows}
        events: list[tuple[EventType, Message]] = []
        for found, _ in steps:
            status, deleted_at = written[found.message.message_id]
            deleted = status is Status.DELETED
            undone = found.message.deleted_at is not None
            message = attrs.evolve(
                found.message,
                status=status,
                version=found.version,
                deleted_at=deleted_at,
                delete_reason=reason if deleted else None,
                status_reason=found.message.status_reason if deleted or undone else reason,
            )
            kind = EventType.DELETED if deleted else EventType.STATUS_CHANGED
            events.append((kind, message))
        self._writer.announce(events)
        return {message.message_id: message for _, message in events}


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[at : at + ROWS] for at in range(0, len(items), ROWS))
