"""The life of stored messages, inside a transaction: statuses, deletions and their undoing.

As every write: lock the channel, read what is there, decide, write, announce. The last two wait
for more of their kind (`steps`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import attrs

from telegram_hybrid.errors import ClaimLost, NotFound, TooManyDeletions
from telegram_hybrid.model import EventType, Message, Status
from telegram_hybrid.repositories.batches import ROWS
from telegram_hybrid.repositories.decisions import WAITING, check_transition
from telegram_hybrid.repositories.steps import Found
from telegram_hybrid.repositories.writing import Writer

_T = TypeVar("_T")


@attrs.frozen(slots=True)
class _Change:
    """A message that was found, how it is to stand, and what tells of that."""

    found: Found
    after: Message
    kind: EventType = EventType.STATUS_CHANGED


class Marker:
    """Marks, deletes and restores messages of one channel by its transaction's writer."""

    def __init__(self, writer: Writer, channel_id: int) -> None:
        self._writer = writer
        self._channel_id = channel_id

    def mark(self, statuses: Mapping[int, Status], reason: str | None) -> dict[int, Message]:
        """Move messages to their statuses, all or none, and return them as they are then.

        Raises as `decide`.
        """
        return self.decide(statuses, reason)()

    def decide(
        self, statuses: Mapping[int, Status], reason: str | None, *, claimed: bool = False
    ) -> Callable[[], dict[int, Message]]:
        """Return what moves messages to their statuses, and returns them as they are then.

        Nothing is changed before it is called. Raises `NotFound`, and `IllegalTransition` for a
        step that is not allowed; of those that are `claimed`, `ClaimLost` for what does not wait
        any more. A claim that began beside the change of a status, before that was committed,
        outlives it: nobody could see the other.
        """
        found: dict[int, Found] = {}
        for ids in _chunks(list(statuses)):
            found |= {each.message.message_id: each for each in self._find(ids)}
        if missing := [number for number in statuses if number not in found]:
            raise NotFound(self._not_stored(missing))
        if claimed and (
            lost := [
                each.message.key for each in found.values() if each.message.status not in WAITING
            ]
        ):
            raise ClaimLost(lost)
        steps = [
            _marked(found[number], status, reason)
            for number, status in statuses.items()
            if check_transition(found[number].message, status)
        ]

        def move() -> dict[int, Message]:
            after = {number: item.message for number, item in found.items()}
            for chunk in _chunks(steps):
                after |= self._apply(chunk)
            return after

        return move

    def delete(self, ids: Sequence[int], reason: str | None, at_most: int | None) -> set[int]:
        """Delete those that are stored and not yet deleted, and return their ids.

        Raises `TooManyDeletions`, before anything is deleted, if they are more than `at_most`.
        """
        gone: set[int] = set()
        waiting: list[Found] = []
        for chunk in _chunks(ids):
            waiting += [each for each in self._find(chunk) if not each.message.deleted_at]
            if at_most is None:
                gone |= self._delete(waiting, reason)
                waiting = []
            elif len(waiting) > at_most:
                raise TooManyDeletions(self._channel_id, at_most)
        for some in _chunks(waiting):
            gone |= self._delete(some, reason)
        return gone

    def restore(self, ids: Sequence[int]) -> dict[int, Message]:
        """Undo the deletion of those that are deleted, and return them as they are then."""
        after: dict[int, Message] = {}
        for chunk in _chunks(ids):
            found = self._find(chunk)
            after |= self._apply([_restored(each, each.before) for each in found if each.before])
        return after

    def restore_one(self, number: int) -> Message:
        """Undo its deletion, if it is deleted, and return it. Raises `NotFound`."""
        found = self._find([number])
        if not found:
            raise NotFound(self._not_stored([number]))
        if (before := found[0].before) is None:
            return found[0].message
        return self._apply([_restored(found[0], before)])[number]

    def _find(self, ids: Sequence[int]) -> list[Found]:
        return self._writer.find(self._channel_id, ids)

    def _delete(self, found: Sequence[Found], reason: str | None) -> set[int]:
        return set(self._apply([_deleted(each, reason) for each in found]))

    def _not_stored(self, ids: Sequence[int]) -> str:
        others = f" and {len(ids) - 1:,} others of {{}} are" if len(ids) > 1 else " of {} is"
        return f"message {ids[0]}{others.format(f'channel {self._channel_id}')} not stored"

    def _apply(self, changes: Sequence[_Change]) -> dict[int, Message]:
        """Have the messages stand as they are to; return them, by id."""
        self._writer.change(
            [(each.kind, each.after) for each in changes],
            at_once=any(each.found.compressed for each in changes),
        )
        return {each.after.message_id: each.after for each in changes}


def _marked(found: Found, status: Status, reason: str | None) -> _Change:
    after = attrs.evolve(found.message, status=status, version=found.version, status_reason=reason)
    return _Change(found, after)


def _deleted(found: Found, reason: str | None) -> _Change:
    """What was said with the status before stays: an undo brings it back."""
    after = attrs.evolve(
        found.message,
        status=Status.DELETED,
        version=found.version,
        deleted_at=found.moment,
        delete_reason=reason,
    )
    return _Change(found, after, EventType.DELETED)


def _restored(found: Found, before: Status) -> _Change:
    after = attrs.evolve(
        found.message,
        status=before,
        version=found.version,
        deleted_at=None,
        delete_reason=None,
    )
    return _Change(found, after)


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[at : at + ROWS] for at in range(0, len(items), ROWS))
