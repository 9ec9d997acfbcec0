"""Steps: messages are locked and read, and get the status that was decided on; a statement each.

A step is only decided on when it is asked for. It is written with those that follow it, before
anything else is said in its transaction: twenty by one statement take little longer than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any

import attrs
from sqlalchemy import Connection

from telegram_hybrid.errors import DatabaseError
from telegram_hybrid.model import EventType, Message, MessageKey, Status
from telegram_hybrid.outbox.locks import lock_prefix
from telegram_hybrid.repositories import reading
from telegram_hybrid.repositories.batches import ROWS
from telegram_hybrid.schema.postgres.sql import array, fetch

# Without CAST and without names, which are a tenth of the work: there is one function of the name,
# and it begins with reading.NAMES.
_FIND = """
SELECT * FROM "{schema}".lock_messages(:prefix, :channel_id, :message_ids)
"""

_WRITE = """
SELECT "{schema}".mark_messages(
    :channel_ids, :message_ids, :sent_at, :statuses, :versions, :reasons)
"""


#: What was sent later than this ago is in no compressed chunk: `compress_window` is a day at least.
NEVER_COMPRESSED = timedelta(hours=12)


@attrs.frozen(slots=True)
class Found:
    """A stored message of a channel that is locked, and what it becomes if it is changed."""

    message: Message
    #: Of a deleted one: the status that an undone deletion gives it.
    before: Status | None
    version: int
    #: The time of the transaction.
    moment: datetime
    #: Whether it may be among what TimescaleDB has compressed.
    compressed: bool


@attrs.frozen(slots=True)
class Step:
    """A message as it is when the step is written, and the event that tells of it."""

    kind: EventType
    message: Message
    traceparent: str | None


class Steps:
    """The steps of one transaction that are decided on, and not written yet.

    `announce` writes the events of some that have a traceparent in common.
    """

    def __init__(
        self,
        connection: Connection,
        schema: str,
        announce: Callable[[Iterable[tuple[EventType, Message]], str | None], object],
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._announce = announce
        self._waiting: list[Step] = []
        #: Whether it must not be committed.
        self.lost = False

    def find(self, channel_id: int, message_ids: Sequence[int]) -> list[Found]:
        """Lock a channel until the transaction ends; return the stored ones of its messages.

        In the order of the ids, in which their versions rise. Any number of compressed messages
        may be changed in the transaction then.
        """
        wanted = {MessageKey(channel_id, number) for number in message_ids}
        if any(step.message.key in wanted for step in self._waiting):
            self.settle()
        values = {
            "prefix": lock_prefix(self._schema),
            "channel_id": channel_id,
            "message_ids": array(message_ids),
        }
        wire = self._wire
        try:
            wire.owed = None  # what it reads is nothing that waits: that may go on waiting
            rows = fetch(self._connection, _FIND, self._schema, values)
            wire.owed = self.settle
        except BaseException:  # no `finally`: what interrupts its first line leaves nothing owed
            wire.owed = self.settle
            raise
        return _found(rows, message_ids)

    def add(self, steps: Iterable[Step], *, at_once: bool) -> None:
        """Take these in: they are written with the next, before anything else is said.

        `at_once` they are written now and by themselves: TimescaleDB decompresses what lies between
        those that are written together.
        """
        if at_once:
            self.settle()
        try:
            self._waiting += steps
            self._wire.owed = self.settle
        except BaseException:
            self.torn()
            raise
        if at_once or len(self._waiting) >= ROWS:
            self.settle()

    def settle(self) -> None:
        """Write what waits. Raises `DatabaseError` if something was once written in part."""
        if self.lost:
            raise DatabaseError("changes of this transaction were not written: it cannot go on")
        wire, waiting = self._wire, self._waiting
        try:
            wire.owed, self._waiting = None, []
            if waiting:
                self._write([step.message for step in waiting])
            for trace, some in groupby(waiting, key=attrgetter("traceparent")):
                self._announce([(step.kind, step.message) for step in some], trace)
        except BaseException:
            # PostgreSQL would commit the rest without these, if somebody swallowed this.
            self.torn()
            raise

    def forget(self) -> None:
        """Do not write what waits: it came behind a savepoint, to which the transaction returns."""
        self._waiting.clear()
        self._wire.owed = None

    def torn(self) -> None:
        """Something was written only in part, by an exception of our side: nothing may commit."""
        if not self._connection.invalidated:
            self.lost |= not self._wire.failed

    def _write(self, messages: Sequence[Message]) -> None:
        values = {
            "channel_ids": array(each.channel_id for each in messages),
            "message_ids": array(each.message_id for each in messages),
            "sent_at": [each.sent_at for each in messages],
            "statuses": array(each.status for each in messages),
            "versions": array(each.version for each in messages),
            "reasons": [
                each.status_reason if each.deleted_at is None else each.delete_reason
                for each in messages
            ],
        }
        fetch(self._connection, _WRITE, self._schema, values)

    @property
    def _wire(self) -> Any:
        return self._connection.connection.dbapi_connection


def _found(rows: Sequence[Any], message_ids: Sequence[int]) -> list[Found]:
    by_id = {row[1]: row for row in rows}
    versions = iter(sorted(row[-3] for row in rows))
    found = []
    for row in (by_id[number] for number in message_ids if number in by_id):
        *columns, before, _, moment, compressing = row
        message = reading.message_of(columns)
        old = message.sent_at < moment - NEVER_COMPRESSED
        before = before and Status(before)
        found.append(Found(message, before, next(versions), moment, compressing and old))
    return found
