"""The unit of work: several writes, one commit; what must follow it follows it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.event import listen

from telegram_hybrid.connect import postgres
from telegram_hybrid.errors import CommitUnknown, InvalidInput
from telegram_hybrid.model import (
    Change,
    ChannelWrite,
    Event,
    Message,
    MessageKey,
    Revision,
    SaveCounts,
    Saved,
    checks,
)
from telegram_hybrid.repositories import lineage, reading
from telegram_hybrid.repositories.batches import batches, checked_message
from telegram_hybrid.repositories.channels import Channels
from telegram_hybrid.repositories.life import TransactionLife
from telegram_hybrid.repositories.partitions import Partitions
from telegram_hybrid.repositories.polling import TransactionPolling
from telegram_hybrid.repositories.savepoints import ends_transaction
from telegram_hybrid.repositories.saving import Saver
from telegram_hybrid.repositories.writing import Writer

_T = TypeVar("_T")


class TransactionMessages(TransactionLife, TransactionPolling):
    """Messages inside one transaction: reads see its own writes and never the cache."""

    def __init__(self, connection: Connection, schema: str, writer: Writer, saver: Saver) -> None:
        self._connection = connection
        self._schema = schema
        self._writer = writer
        self._saver = saver

    def save(self, message: Message) -> Saved:
        """Store one message; see `Messages.save`."""
        return self.save_batch([checked_message("message", message)])[0]

    def save_batch(self, messages: Sequence[Message]) -> list[Saved]:
        """Store some messages and return the outcome of each, in order."""
        return self._saver.save(messages) if messages else []

    def save_many(self, messages: Iterable[Message]) -> SaveCounts:
        """Store a stream of messages, all in this transaction, and count the outcomes."""
        counts = SaveCounts()
        for batch in batches(messages):
            counts += SaveCounts.of(self.save_batch(batch))
        return counts

    def get(
        self, channel_id: int, message_id: int, *, include_deleted: bool = False
    ) -> Message | None:
        """Return one message as this transaction sees it, or None."""
        found = self.get_many(channel_id, [message_id], include_deleted=include_deleted)
        return found.get(message_id)

    def get_many(
        self, channel_id: int, message_ids: Iterable[int], *, include_deleted: bool = False
    ) -> dict[int, Message]:
        """Return the stored ones of `message_ids`, by id."""
        found = reading.by_ids(
            self._connection, self._schema, channel_id, checked_ids(channel_id, message_ids)
        )
        return wanted(found, include_deleted)

    def seen(self, channel_id: int, message_ids: Iterable[int]) -> set[int]:
        """Return which of `message_ids` are stored, deleted ones included."""
        ids = checked_ids(channel_id, message_ids)
        return reading.stored_ids(self._connection, self._schema, channel_id, ids)

    def latest(
        self, channel_id: int, *, limit: int = 100, include_deleted: bool = False
    ) -> list[Message]:
        """Return the newest messages, newest first."""
        checks.channel_id("channel_id", channel_id)
        checks.count("limit", limit)
        return reading.newest(
            self._connection,
            self._schema,
            channel_id,
            limit=limit,
            include_deleted=include_deleted,
        )

    def after(
        self,
        channel_id: int,
        *,
        message_id: int | None = None,
        limit: int = 100,
        include_deleted: bool = False,
    ) -> list[Message]:
        """Return the messages that follow `message_id`, oldest first; see `Messages.after`."""
        above = checked_cursor(channel_id, message_id)
        checks.count("limit", limit)
        return reading.oldest(
            self._connection,
            self._schema,
            channel_id,
            above=above,
            limit=limit,
            include_deleted=include_deleted,
        )

    def history(
        self,
        channel_id: int,
        *,
        after: MessageKey | None = None,
        limit: int = 100,
        include_deleted: bool = False,
    ) -> list[Message]:
        """Return the messages behind `after` over a migration, oldest first; see `Messages`."""
        checks.channel_id("channel_id", channel_id)
        checks.count("limit", limit)
        key = lineage.checked_after(after)
        return lineage.walk(
            lineage.lineage(self._connection, self._schema, channel_id),
            key,
            limit,
            lambda chat, above, room: self.after(
                chat, message_id=above, limit=room, include_deleted=include_deleted
            ),
        )

    def revisions(self, channel_id: int, message_id: int) -> list[Revision]:
        """Return the earlier contents of a message, oldest first."""
        key = checked_key(channel_id, message_id)
        return reading.revisions(self._connection, self._schema, *key)


class Transaction:
    """One open transaction: `messages` and `channels` on it, and its SQLAlchemy `connection`.

    `publish` announces events of your own. The connection is there for your own statements, which
    commit or roll back with ours; savepoints, too, are set and rolled back to through it, and not
    through the driver: the cache would be told of what was never committed.
    """

    def __init__(self, connection: Connection, schema: str, writer: Writer, saver: Saver) -> None:
        self.connection = connection
        self._writer = writer
        self.messages = TransactionMessages(connection, schema, writer, saver)
        self.channels = Channels(lambda: nullcontext(connection), schema)

    def publish(self, event: Event) -> Event:
        """Have an event of your own delivered if this transaction commits, and else never.

        It waits in the outbox like those of messages, and comes behind all that was committed to
        its channel before: the channel is locked until the transaction ends. Returns it with its
        `event_id`, `sequence` and `occurred_at`. Bind a queue to its type before: an event that
        no queue wants holds up its channel until it is given up.

        Raises `InvalidInput` for what is no event, and for those of messages, which are written
        by saving them.
        """
        if not isinstance(event, Event):
            raise InvalidInput("event", f"expected an Event, got {type(event).__name__}")
        if event.message_id is not None:
            raise InvalidInput("event", "events of messages come from saving, marking, deleting")
        return self._writer.publish(event)

    def follow(self, work: Callable[[Writer], _T]) -> _T:
        """Have `work` done by the writer of this transaction: the library's own housekeeping."""
        return work(self._writer)

    @property
    def changes(self) -> list[Change]:
        """What this transaction has changed so far; an event of your own is no change."""
        return self._writer.changes


class Transactions:
    """Opens transactions, and tells what each of them is about to change, and has changed."""

    def __init__(
        self,
        engine: Engine,
        schema: str,
        partitions: Partitions,
        before_commit: Callable[[list[ChannelWrite]], object],
        after_commit: Callable[[list[ChannelWrite]], object],
        *,
        refuse_unknown: bool = False,
    ) -> None:
        self._refuse_unknown = refuse_unknown
        self._engine = engine
        self._schema = schema
        self._partitions = partitions
        self._before_commit = before_commit
        self._after_commit = after_commit
        self._local = threading.local()
        #: The writers of all open transactions.
        self._open: dict[Connection, Writer] = {}
        listen(engine, "before_cursor_execute", self._hear)
        listen(engine, "after_cursor_execute", self._heard)

    @contextmanager
    def begin(self, *, traceparent: str | None = None) -> Iterator[Transaction]:
        """Commit at the clean end of the block, roll back on any exception.

        `before_commit` is called while the channels are locked; it is called again when nobody
        can know whether the commit happened. `after_commit` is called when it surely did. Neither
        is called for a transaction that changed nothing; if it published events and changed no
        message, `after_commit` alone.
        """
        if traceparent is not None:
            checks.traceparent("traceparent", traceparent)
        writes: list[ChannelWrite] = []
        published = False
        writers = self._writers_of_thread()
        try:
            with postgres.transaction(self._engine) as connection:
                writer = Writer(connection, self._schema, writers, traceparent)
                saver = Saver(
                    connection,
                    self._schema,
                    writer,
                    self._partitions,
                    refuse_unknown=self._refuse_unknown,
                )
                transaction = Transaction(connection, self._schema, writer, saver)
                writers.append(writer)
                self._open[connection] = writer
                try:
                    yield transaction
                finally:
                    writers[:] = [each for each in writers if each is not writer]
                    del self._open[connection]
                writes, published = writer.writes(), writer.published
                if writes:
                    self._before_commit(writes)
        except CommitUnknown:
            if writes:
                self._before_commit(writes)
            raise
        if writes or published:
            self._after_commit(writes)

    def _hear(self, connection: Connection, _cursor: Any, statement: str, *_more: Any) -> None:
        if (writer := self._open.get(connection)) is not None:
            if ends_transaction(statement):
                # What was written would be gone, or there too early, and nobody were told.
                raise InvalidInput(
                    "statement", "a transaction ends with its block: leave that, or raise"
                )
            writer.savepoints.hear(statement)

    def _heard(self, connection: Connection, _cursor: Any, statement: str, *_more: Any) -> None:
        if (writer := self._open.get(connection)) is not None:
            writer.savepoints.heard(statement)

    def _writers_of_thread(self) -> list[Writer]:
        """Those of the transactions that this thread has open."""
        try:
            found: list[Writer] = self._local.writers
        except AttributeError:
            found = self._local.writers = []
        found[:] = [each for each in found if not each.ended]  # as one that was interrupted there
        return found


def checked_ids(channel_id: int, message_ids: Iterable[int]) -> list[int]:
    """Return the ids without repetitions, in order. Raises `InvalidInput` naming the field."""
    checks.channel_id("channel_id", channel_id)
    return list(dict.fromkeys(checks.message_ids("message_ids", message_ids)))


def wanted(found: dict[int, Message], include_deleted: bool) -> dict[int, Message]:
    """Return `found`, without deleted messages unless they are asked for."""
    if include_deleted:
        return found
    return {number: item for number, item in found.items() if item.deleted_at is None}


def checked_key(channel_id: int, message_id: int) -> MessageKey:
    """Return the key of a message. Raises `InvalidInput` naming the field."""
    return MessageKey(
        checks.channel_id("channel_id", channel_id), checks.message_id("message_id", message_id)
    )


def checked_cursor(channel_id: int, message_id: int | None) -> int:
    """Return the id above which to read, below all ids for None. Raises `InvalidInput`."""
    checks.channel_id("channel_id", channel_id)
    return -1 if message_id is None else checks.message_id("message_id", message_id)
