"""What users call for the life of a message, in a transaction of their own and within one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from telegram_hybrid.model import Message, Status, checks
from telegram_hybrid.repositories.arguments import distinct_ids, optional_reason, statuses_by_id
from telegram_hybrid.repositories.marking import Marker
from telegram_hybrid.repositories.writing import Writer

#: How many messages `delete_many` deletes unless it is told otherwise.
AT_MOST = 100


class TransactionLife:
    """Statuses, deletions and their undoing, as a part of one transaction."""

    _writer: Writer

    def mark(
        self, channel_id: int, message_id: int, status: Status, *, reason: str | None = None
    ) -> Message:
        """Move a message to another status; see `Messages.mark`."""
        number = checks.message_id("message_id", message_id)
        return self.mark_many(channel_id, {number: status}, reason=reason)[number]

    def mark_many(
        self,
        channel_id: int,
        message_ids: Mapping[int, Status] | Iterable[int],
        status: Status | None = None,
        *,
        reason: str | None = None,
    ) -> dict[int, Message]:
        """Move messages to other statuses, all or none; see `Messages.mark_many`."""
        statuses = statuses_by_id(message_ids, status)
        return self._marker(channel_id).mark(statuses, optional_reason(reason)) if statuses else {}

    def request_reprocess(
        self, channel_id: int, message_ids: Iterable[int], *, reason: str | None = None
    ) -> dict[int, Message]:
        """Ask for messages to be processed again; see `Messages.request_reprocess`."""
        return self.mark_many(channel_id, message_ids, Status.REPROCESS_PENDING, reason=reason)

    def delete(self, channel_id: int, message_id: int, *, reason: str | None = None) -> bool:
        """Mark a message as deleted; see `Messages.delete`."""
        number = checks.message_id("message_id", message_id)
        return bool(self.delete_many(channel_id, [number], reason=reason))

    def delete_many(
        self,
        channel_id: int,
        message_ids: Iterable[int],
        *,
        reason: str | None = None,
        at_most: int | None = AT_MOST,
    ) -> set[int]:
        """Mark messages as deleted, if they are not too many; see `Messages.delete_many`."""
        ids = distinct_ids(message_ids)
        if at_most is not None:
            checks.count("at_most", at_most)
        marker = self._marker(channel_id)
        return marker.delete(ids, optional_reason(reason), at_most) if ids else set()

    def restore(self, channel_id: int, message_id: int) -> Message:
        """Undo a deletion; see `Messages.restore`."""
        number = checks.message_id("message_id", message_id)
        return self._marker(channel_id).restore_one(number)

    def restore_many(self, channel_id: int, message_ids: Iterable[int]) -> set[int]:
        """Undo deletions; see `Messages.restore_many`."""
        ids = distinct_ids(message_ids)
        marker = self._marker(channel_id)
        return set(marker.restore(ids)) if ids else set()

    def _marker(self, channel_id: int) -> Marker:
        return Marker(self._writer, checks.channel_id("channel_id", channel_id))


class MessageLife:
    """Statuses, deletions and their undoing, each call one transaction."""

    #: Runs what it is given in a transaction, which has these calls as its `messages`.
    _write: Callable[[Callable[[Any], Any]], Any]

    def mark(
        self, channel_id: int, message_id: int, status: Status, *, reason: str | None = None
    ) -> Message:
        """Move a message to another status and return it; marking twice changes nothing.

        `reason` is kept with the status (`Message.status_reason`), and told with the event.
        Raises `NotFound`, and `IllegalTransition` for a step such as published to received.
        """
        number = checks.message_id("message_id", message_id)
        return self.mark_many(channel_id, {number: status}, reason=reason)[number]

    def mark_many(
        self,
        channel_id: int,
        message_ids: Mapping[int, Status] | Iterable[int],
        status: Status | None = None,
        *,
        reason: str | None = None,
    ) -> dict[int, Message]:
        """Move messages of a channel to other statuses, and return them as they are then, by id.

        Either ids and one `status`, or a mapping {id: status}. All or none, with one event for
        each that changes; a thousand take as many round trips as one. What has its status
        already stays as it is, with its reason. Raises as `mark`.
        """
        checks.channel_id("channel_id", channel_id)
        statuses, reason = statuses_by_id(message_ids, status), optional_reason(reason)
        if not statuses:
            return {}
        found: dict[int, Message] = self._write(
            lambda tx: tx.messages.mark_many(channel_id, statuses, reason=reason)
        )
        return found

    def request_reprocess(
        self, channel_id: int, message_ids: Iterable[int], *, reason: str | None = None
    ) -> dict[int, Message]:
        """Ask for messages to be processed again, and return them, by id.

        They become reprocess_pending, all or none, whatever was done with them before. Raises
        `NotFound`, and `IllegalTransition` if one is deleted.
        """
        return self.mark_many(channel_id, message_ids, Status.REPROCESS_PENDING, reason=reason)

    def delete(self, channel_id: int, message_id: int, *, reason: str | None = None) -> bool:
        """Mark a message as deleted; return whether it was stored and not yet deleted.

        The row stays, and redelivery does not bring the message back; `restore` does.
        """
        number = checks.message_id("message_id", message_id)
        return bool(self.delete_many(channel_id, [number], reason=reason))

    def delete_many(
        self,
        channel_id: int,
        message_ids: Iterable[int],
        *,
        reason: str | None = None,
        at_most: int | None = AT_MOST,
    ) -> set[int]:
        """Mark messages as deleted; return the ids of those that were stored and not yet deleted.

        All or none. If that would be more than `at_most` messages, none is deleted and
        `TooManyDeletions` is raised: a wrong list, or a client that lost its mind, does not empty
        a channel. None is no limit.
        """
        checks.channel_id("channel_id", channel_id)
        ids, reason = distinct_ids(message_ids), optional_reason(reason)
        if at_most is not None:
            checks.count("at_most", at_most)
        if not ids:
            return set()
        gone: set[int] = self._write(
            lambda tx: tx.messages.delete_many(channel_id, ids, reason=reason, at_most=at_most)
        )
        return gone

    def restore(self, channel_id: int, message_id: int) -> Message:
        """Undo a deletion, and return the message: with the status and reason it had before.

        Its event is `message.status_changed`, with the whole message, no longer deleted, and a
        version above that of the deletion. A message that is not deleted stays as it is. One that
        was deleted before the database kept its status gets the last one that left a time, or
        received. Raises `NotFound`.
        """
        checks.channel_id("channel_id", channel_id)
        checks.message_id("message_id", message_id)
        restored: Message = self._write(lambda tx: tx.messages.restore(channel_id, message_id))
        return restored

    def restore_many(self, channel_id: int, message_ids: Iterable[int]) -> set[int]:
        """Undo deletions, all in one transaction; return the ids of those that were deleted."""
        checks.channel_id("channel_id", channel_id)
        ids = distinct_ids(message_ids)
        if not ids:
            return set()
        back: set[int] = self._write(lambda tx: tx.messages.restore_many(channel_id, ids))
        return back
