"""Messages: what users call. Writes are one transaction each; reads go through the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from telegram_hybrid.cache import (
    EVERY_ID,
    Allowed,
    Load,
    Loaded,
    MessageCache,
    Window,
    after_from,
    after_from_pages,
    latest_from,
    pages_after,
    sealed,
)
from telegram_hybrid.connect.postgres import reads
from telegram_hybrid.errors import WriteConflict
from telegram_hybrid.model import Changes, Message, MessageKey, Revision, SaveCounts, Saved, checks
from telegram_hybrid.outbox.locks import look
from telegram_hybrid.repositories import changes, lineage, reading
from telegram_hybrid.repositories.batches import batches, checked_message
from telegram_hybrid.repositories.life import MessageLife
from telegram_hybrid.repositories.polling import MessagePolling
from telegram_hybrid.repositories.search.calls import MessageSearch
from telegram_hybrid.repositories.transaction import (
    Transaction,
    Transactions,
    checked_cursor,
    checked_ids,
    checked_key,
    wanted,
)
from telegram_hybrid.schema.redis.values import PAGE

_T = TypeVar("_T")

#: For a write that met a conflict: the other writer goes on by then.
_AGAIN = Retrying(
    retry=retry_if_exception_type(WriteConflict),
    stop=stop_after_attempt(4),
    wait=wait_random_exponential(multiplier=0.02, max=0.5),
    reraise=True,
)


class Messages(MessageLife, MessagePolling, MessageSearch):
    """The messages of all channels.

    Every write is one transaction: the row, its revision and its event commit together or not
    at all (P2). A write that met a deadlock is run again. Every read is answered by Redis, else
    by PostgreSQL, and is never older than the last applied invalidation (P5).
    """

    def __init__(
        self, engine: Engine, schema: str, transactions: Transactions, cache: MessageCache
    ) -> None:
        self._engine = engine
        self._schema = schema
        self._transactions = transactions
        self._cache = cache

    def save(self, message: Message) -> Saved:
        """Store a message: once, however often and from however many writers it comes (P1).

        New: INSERTED. Stored with other, not newer content: EDITED, and the earlier content
        becomes a revision. Otherwise DUPLICATE, which changes nothing: not a later view count,
        not a reaction, not an edit that arrives late (its text is kept as a revision).

        What `message` says of status, version and deletion is ignored: that record is ours.

        Raises `UnknownChannel` if its channel is not registered and `Settings.unknown_channels`
        says "refuse". An inactive channel is registered: its messages are stored.
        """
        checked_message("message", message)
        return self._write(lambda tx: tx.messages.save(message))

    def save_many(
        self,
        messages: Iterable[Message],
        *,
        on_commit: Callable[[SaveCounts], object] | None = None,
    ) -> SaveCounts:
        """Store a stream of messages in bounded memory and count the outcomes.

        Batches of up to 1,000 messages commit one by one, each followed by a call of
        `on_commit` with its own counts. When the stream or the database fails, what was committed
        stays; run it again with the same messages to resume, since the first part will be
        duplicates. For all or nothing use `hybrid.transaction()`. `UnknownChannel` is as in `save`:
        of its batch nothing is stored.
        """
        counts = SaveCounts()
        for batch in batches(messages):
            saved = self._write(partial(_save_batch, batch))
            counts += (now := SaveCounts.of(saved))
            if on_commit is not None:
                on_commit(now)
        return counts

    def get(
        self,
        channel_id: int,
        message_id: int,
        *,
        include_deleted: bool = False,
        stale_if_error: bool = False,
        stale_while_revalidate: bool = False,
    ) -> Message | None:
        """Return one message, or None.

        With `Settings.cache_keep_last`, a caller may allow what was last known, marked `stale`:
        when the database is out of reach (`stale_if_error`), or instead of waiting for it, while
        it is asked in the background (`stale_while_revalidate`).
        """
        checked_key(channel_id, message_id)
        allow = Allowed(stale_if_error, stale_while_revalidate)
        found = self._cache.get(channel_id, message_id, partial(self._by_ids, channel_id), allow)
        return None if found is None or (found.deleted_at and not include_deleted) else found

    def get_many(
        self, channel_id: int, message_ids: Iterable[int], *, include_deleted: bool = False
    ) -> dict[int, Message]:
        """Return the stored ones of `message_ids`, by id."""
        ids = checked_ids(channel_id, message_ids)
        if not ids:
            return {}
        found = self._cache.get_many(channel_id, ids, partial(self._by_ids, channel_id))
        return wanted(found, include_deleted)

    def latest(
        self,
        channel_id: int,
        *,
        limit: int = 100,
        include_deleted: bool = False,
        stale_if_error: bool = False,
        stale_while_revalidate: bool = False,
    ) -> list[Message]:
        """Return the newest messages by message_id, newest first.

        What was last known may be allowed as in `get`, up to the window's size.
        """
        checks.channel_id("channel_id", channel_id)
        checks.count("limit", limit)
        if not include_deleted and limit <= self._cache.window_size:
            allow = Allowed(stale_if_error, stale_while_revalidate)
            window = self._cache.window(
                channel_id, limit, partial(self._head, channel_id, limit), allow
            )
            found = latest_from(window, limit) if window else None
            if found is not None:
                return found
        with reads(self._engine) as connection:
            return reading.newest(
                connection, self._schema, channel_id, limit=limit, include_deleted=include_deleted
            )

    def after(
        self,
        channel_id: int,
        *,
        message_id: int | None = None,
        limit: int = 100,
        include_deleted: bool = False,
    ) -> list[Message]:
        """Return the messages that follow `message_id`, oldest first: for pollers.

        The message of that id is not among them, and need not be stored. None, for a first
        call, begins with the first message: its id may be 0.
        """
        above = checked_cursor(channel_id, message_id)
        checks.count("limit", limit)
        found: list[Message] = []
        if not include_deleted:
            found, above = self._cached_after(channel_id, above, limit)
        if len(found) == limit or above == EVERY_ID:
            return found
        with reads(self._engine) as connection:
            return found + reading.oldest(
                connection,
                self._schema,
                channel_id,
                above=above,
                limit=limit - len(found),
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
        """Return the messages that follow `after`, oldest first, over the chat's whole history.

        That of a supergroup begins in the basic group that it was made of, if that migration is
        recorded (`channels.record_migration`), and it may be asked for by either id. Ids begin
        anew in the supergroup: go on with the `key` of the last message. None begins with the
        first. Raises `InvalidInput` if `after` is in neither chat.

            page = hybrid.messages.history(channel_id)
            more = hybrid.messages.history(channel_id, after=page[-1].key)
        """
        checks.channel_id("channel_id", channel_id)
        checks.count("limit", limit)
        key = lineage.checked_after(after)
        with reads(self._engine) as connection:
            chain = lineage.lineage(connection, self._schema, channel_id)
        return lineage.walk(
            chain,
            key,
            limit,
            lambda chat, above, room: self.after(
                chat, message_id=above, limit=room, include_deleted=include_deleted
            ),
        )

    def seen(self, channel_id: int, message_ids: Iterable[int]) -> set[int]:
        """Return which of `message_ids` are stored, deleted ones included.

        An id is in the answer only when its message is committed.
        """
        ids = checked_ids(channel_id, message_ids)
        return (
            self._cache.seen(channel_id, ids, partial(self._stored, channel_id)) if ids else set()
        )

    def revisions(self, channel_id: int, message_id: int) -> list[Revision]:
        """Return the earlier contents of a message, oldest first; not cached."""
        checked_key(channel_id, message_id)
        with reads(self._engine) as connection:
            return reading.revisions(connection, self._schema, channel_id, message_id)

    def changes(
        self,
        cursor: str | None = None,
        *,
        limit: int = 100,
        channels: Iterable[int] | None = None,
    ) -> Changes:
        """Return what happened to messages behind `cursor`: for who has no broker to tell them.

            cursor = load()                                    # None at first
            while True:
                page = hybrid.messages.changes(cursor, limit=500)
                for change in page:
                    print(change.type, change.key, change.message)
                cursor = save(page.cursor)
                if not page.more:
                    sleep(1)

        Every arrival, edit, change of status and deletion is given once, those of a channel in the
        order of their commits; of two channels, the one that is furthest behind comes first. A
        transaction that commits late is on a later page, and holds up nothing. A page has at most
        `limit` (1 to 10,000) changes, by version.

        Without a cursor it begins with the oldest change that is kept, with "now" with the first
        one from now on: that page is empty. `channels` chooses (None: all), and may be another
        choice at every call: a channel that this cursor has not been asked for begins with the
        oldest that is kept. The text of a cursor grows with the channels that it knows, by some 12
        characters each. Not cached; a call that finds nothing is one statement.

        Changes are kept for 30 days, unless `Hybrid.maintain` is told otherwise, and until it runs.
        Raises `CursorExpired` if some behind the cursor are forgotten, `InvalidInput` for a cursor
        that is none or of another database, and `DatabaseError`.
        """
        positions, chosen = changes.checked(cursor, channels, limit)
        with reads(self._engine) as connection:
            return changes.page(connection, self._schema, positions, chosen, limit)

    def _cached_after(
        self, channel_id: int, message_id: int, limit: int
    ) -> tuple[list[Message], int]:
        """What the cache knows to follow `message_id`, and the id up to which that is complete.

        Page by page, as far as `limit` messages reach where nearly every id is one.
        """
        found: list[Message] = []
        above = message_id
        while len(found) < limit and above < message_id + limit + PAGE:
            room = limit - len(found)
            known = self._cache.after(channel_id, above, room)
            more, reached = known or self._loaded_after(channel_id, above, room)
            found += more
            if reached in (above, EVERY_ID):
                return found, reached
            above = reached
        return found, above

    def _loaded_after(
        self, channel_id: int, message_id: int, limit: int
    ) -> tuple[list[Message], int]:
        """The same, by reading the window and pages, and caching what of them is not."""
        window = self._cache.window(channel_id, None, partial(self._head, channel_id, 0))
        if window is None:
            return [], message_id
        newest = after_from(window, message_id, limit)
        if newest is not None:
            return newest, EVERY_ID
        numbers = [each for each in pages_after(message_id, limit) if sealed(window, each)]
        pages = self._cache.pages(channel_id, numbers, partial(self._pages, channel_id))
        return after_from_pages(window, pages, message_id, limit)

    def _pages(self, channel_id: int, request: Load) -> Loaded:
        """Load pages if they can be stored, else none: the database is asked for less."""
        if not request.guarded:
            return Loaded(None)
        with reads(self._engine) as connection:
            guard = self._look(connection, channel_id, request)
            found = {
                number: reading.page(connection, self._schema, channel_id, number)
                for number in request.ids
            }
        pages = {n: Window.page(n, messages, guard[0]) for n, messages in found.items()}
        return Loaded(pages, *guard)

    def _by_ids(self, channel_id: int, request: Load) -> Loaded:
        with reads(self._engine) as connection:
            if request.guarded:
                return reading.guarded(connection, self._schema, channel_id, request.ids)
            return Loaded(reading.by_ids(connection, self._schema, channel_id, request.ids))

    def _stored(self, channel_id: int, request: Load) -> Loaded:
        with reads(self._engine) as connection:
            return Loaded(reading.stored_ids(connection, self._schema, channel_id, request.ids))

    def _head(self, channel_id: int, limit: int, request: Load) -> Loaded:
        """Load the head window whole if it can be stored, else its newest `limit` messages."""
        size = self._cache.window_capacity if request.guarded else limit
        if size == 0:
            return Loaded(None)
        with reads(self._engine) as connection:
            guard = self._look(connection, channel_id, request)
            head = reading.newest(connection, self._schema, channel_id, limit=size)
        return Loaded(Window.of(head, size, guard[0]), *guard)

    def _look(self, connection: Connection, channel_id: int, request: Load) -> tuple[int, bool]:
        """What guards a value that is loaded next; nothing if it will not be stored."""
        return look(connection, self._schema, [channel_id]) if request.guarded else (0, False)

    def _write(self, work: Callable[[Transaction], _T]) -> _T:
        try:
            return self._once(work)
        except WriteConflict:
            result: _T = _AGAIN(self._once, work)
            return result

    def _once(self, work: Callable[[Transaction], _T]) -> _T:
        with self._transactions.begin() as transaction:
            return work(transaction)


def _save_batch(batch: list[Message], transaction: Transaction) -> list[Saved]:
    return transaction.messages.save_batch(batch)
