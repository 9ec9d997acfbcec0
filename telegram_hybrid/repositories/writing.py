"""Writing messages inside a transaction: lock the channels, read what is there, decide, write.

Every write of a channel holds that channel's lock until its commit. So what is read after the
lock is still true when it is written, versions and outbox ids are drawn in commit order, and
writers of one channel never deadlock over its keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from telegram_hybrid.cache.writes import PATCHABLE, group
from telegram_hybrid.errors import NestedWrite, UnknownChannel
from telegram_hybrid.model import (
    Change,
    ChannelWrite,
    Event,
    EventType,
    Message,
    MessageKey,
    Outcome,
    RevisionReason,
    Saved,
)
from telegram_hybrid.model.message import arrived
from telegram_hybrid.observe import traces
from telegram_hybrid.outbox import rows as outbox
from telegram_hybrid.outbox.locks import lock_channels, lock_prefix
from telegram_hybrid.repositories import reading
from telegram_hybrid.repositories.batches import waves
from telegram_hybrid.repositories.decisions import Verdict, compare
from telegram_hybrid.repositories.inserting import columns
from telegram_hybrid.repositories.lineage import record_told, told_by
from telegram_hybrid.repositories.partitions import Partitions
from telegram_hybrid.repositories.savepoints import Savepoints
from telegram_hybrid.repositories.steps import NEVER_COMPRESSED, Found, Step, Steps
from telegram_hybrid.schema.postgres.sql import array, fetch

_KEYS = """
SELECT key.sent_at, nextval('"{schema}".message_version') AS version, now() AS received_at
FROM unnest(CAST(:channel_id AS bigint[]), CAST(:message_id AS bigint[])) WITH ORDINALITY
    AS wanted (channel_id, message_id, position)
LEFT JOIN "{schema}".message_keys AS key USING (channel_id, message_id)
ORDER BY position
"""

# Both, in one: see the function's migration.
_LOCK_AND_LOOK = """
SELECT stored_under, version, moment FROM "{schema}".lock_keys(
    CAST(:prefix AS text), CAST(:channel_id AS bigint[]), CAST(:message_id AS bigint[]))
"""

# Beside the message: it keeps its version, and nothing is announced.
_CONFIRM = """
INSERT INTO "{schema}".message_confirmations AS known (channel_id, message_id, said_at)
SELECT * FROM unnest(CAST(:channel_id AS bigint[]), CAST(:message_id AS bigint[]),
                     CAST(:said_at AS timestamptz[]))
ON CONFLICT (channel_id, message_id) DO UPDATE SET said_at = excluded.said_at
WHERE known.said_at < excluded.said_at
"""

# Under the policy that refuses them.
_UNKNOWN = """
SELECT wanted.channel_id FROM unnest(CAST(:channel_ids AS bigint[])) AS wanted (channel_id)
WHERE NOT EXISTS (
    SELECT FROM "{schema}".channels AS known WHERE known.channel_id = wanted.channel_id)
"""

_EDIT = """
UPDATE "{schema}".messages SET
    version = :version, message_type = :message_type, text = :text, caption = :caption,
    entities = CAST(:entities AS jsonb), edited_at = :edited_at, sender_id = :sender_id,
    sender_name = :sender_name, reply_to_id = :reply_to_id, thread_id = :thread_id,
    grouped_id = :grouped_id, media_type = :media_type, media = CAST(:media AS jsonb),
    metadata = CAST(:metadata AS jsonb), updated_at = now()
WHERE channel_id = :channel_id AND message_id = :message_id AND sent_at = :sent_at
"""

_REVISION = """
INSERT INTO "{schema}".message_revisions
    (channel_id, message_id, version, text, caption, edited_at, reason)
SELECT CAST(:channel_id AS bigint), CAST(:message_id AS bigint), CAST(:version AS bigint),
       CAST(:text AS text), CAST(:caption AS text), CAST(:edited_at AS timestamptz),
       CAST(:reason AS text)
WHERE NOT EXISTS (
    SELECT FROM "{schema}".message_revisions AS known
    WHERE known.channel_id = :channel_id AND known.message_id = :message_id
      AND known.text = :text AND known.caption IS NOT DISTINCT FROM CAST(:caption AS text)
      AND known.edited_at IS NOT DISTINCT FROM CAST(:edited_at AS timestamptz)
)
"""

_NOTHING = (None, None)


@attrs.frozen(slots=True)
class Known:
    """What a writer knows at some moment of its transaction."""

    changes: int
    locked: frozenset[int]
    heads: Mapping[int, int]
    unbounded: bool
    lost: bool


@attrs.frozen(slots=True)
class Slot:
    """What the database said of one key: where it is stored, if it is, and a fresh version."""

    sent_at: datetime | None
    version: int
    received_at: datetime


class Writer:
    """The write path of messages, on one open transaction. Collects what it changed.

    `beside` are the writers of all transactions that its thread has open, now and later. Events
    carry `traceparent`, or else that of the span they happen in. With `refuse_unknown`, messages
    of channels that are not registered are not saved.
    """

    def __init__(
        self,
        connection: Connection,
        schema: str,
        partitions: Partitions,
        beside: Sequence[Writer],
        traceparent: str | None = None,
        *,
        refuse_unknown: bool = False,
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._partitions = partitions
        self._beside = beside
        self._traceparent = traceparent
        self._refuse_unknown = refuse_unknown
        self.locked: set[int] = set()
        self.changes: list[Change] = []
        #: Whether it may change any number of compressed messages.
        self._unbounded = False
        self._steps = Steps(connection, schema, self._append)
        #: Whether events of somebody's own wait for the commit.
        self.published = False
        #: The version of each channel before this transaction changed it; never changed in place.
        self._heads: Mapping[int, int] = {}
        self.savepoints = Savepoints(self._known, self._return_to)

    def save(self, messages: Sequence[Message]) -> list[Saved]:
        """Store a batch and return the outcome of each, in order.

        A key that occurs several times is saved as often, one after the other. Raises
        `UnknownChannel`, before anything of the batch is stored, where such are refused.
        """
        # Before the first statement: through a pooler, a transaction that has begun holds one of
        # its few server connections, and all of them would wait here for one more.
        self._partitions.ensure(item.sent_at for item in messages)
        channel_ids = {item.channel_id for item in messages}
        saved: dict[int, Saved] = {}
        for wave in waves(messages):
            batch = [messages[position] for position in wave]
            keys = [message.key for message in batch]
            slots = self.slots(keys) if saved else self._lock_and_look(channel_ids, keys)
            try:
                outcomes = self._save_distinct(keys, batch, slots)
            except BaseException:
                self._steps.torn()  # an edit without its event, a change that was only counted
                raise
            saved.update(zip(wave, outcomes, strict=True))
        return [saved[position] for position in range(len(messages))]

    def publish(self, event: Event) -> Event:
        """Write an event of somebody's own; return it as it will be delivered.

        It changes no message: the channel's version, which the cache goes by, stays.
        """
        self._reserve({event.channel_id})
        if event.traceparent is None and (trace := self._trace()) is not None:
            event = attrs.evolve(event, traceparent=trace)
        published = outbox.publish(self._connection, self._schema, event)
        self.locked.add(event.channel_id)
        self.published = True
        return published

    def writes(self) -> list[ChannelWrite]:
        """What the transaction has done so far, by channel; all of it is written then."""
        self._steps.settle()
        return [
            attrs.evolve(write, previous=self._heads[write.channel_id])
            for write in group(self.changes)
        ]

    def _known(self) -> Known:
        """What is true again after a rollback to a savepoint that was just set."""
        locked = frozenset(self.locked)
        return Known(len(self.changes), locked, self._heads, self._unbounded, self._steps.lost)

    def _return_to(self, then: Known) -> None:
        self._steps.forget()
        del self.changes[then.changes :]
        self.locked = set(then.locked)
        self._heads, self._unbounded = then.heads, then.unbounded
        self._steps.lost = then.lost

    # What every write does, also those that are written elsewhere.

    def lock(self, channel_ids: set[int], *, unbounded: bool = False) -> None:
        """Hold the locks of these channels until the transaction ends; see `lock_channels`."""
        self._reserve(channel_ids)
        lock_channels(self._connection, self._schema, channel_ids, unbounded=unbounded)
        self.locked |= channel_ids
        self._unbounded |= unbounded

    def _reserve(self, channel_ids: set[int]) -> None:
        # PostgreSQL sees no deadlock here: one side waits, the other is only idle.
        for other in self._beside:
            if other is not self and (both := other.locked & channel_ids):
                raise NestedWrite(
                    f"an open transaction of this thread has written to channel {min(both)}: "
                    "write through that transaction, or after its end"
                )

    def _lock_and_look(self, channel_ids: set[int], keys: Sequence[MessageKey]) -> list[Slot]:
        """`lock` and then `slots`, in one statement."""
        self._reserve(channel_ids)
        rows = self.execute(_LOCK_AND_LOOK, prefix=lock_prefix(self._schema), **_arrays(keys))
        self.locked |= channel_ids
        if self._refuse_unknown and (unknown := self._unknown(channel_ids)):
            raise UnknownChannel(unknown)
        return [Slot(*row) for row in rows]

    def _unknown(self, channel_ids: set[int]) -> list[int]:
        return [row[0] for row in self.execute(_UNKNOWN, channel_ids=array(channel_ids))]

    def _save_distinct(
        self, keys: Sequence[MessageKey], batch: Sequence[Message], slots: Sequence[Slot]
    ) -> list[Saved]:
        known = [key for key, slot in zip(keys, slots, strict=True) if slot.sent_at is not None]
        stored = self._stored_and_said(known)
        confirmed: list[Message] = []
        written: list[tuple[EventType, Message, Slot]] = []
        outcomes: list[Saved] = []
        for key, message, slot in zip(keys, batch, slots, strict=True):
            before, said_at = stored.get(key, _NOTHING)
            if before is None and slot.sent_at is not None:
                # Stored once and since retired: the key alone remembers it.
                outcomes.append(Saved(key, Outcome.DUPLICATE, 0))
                continue
            if before is None:
                written.append((EventType.RECEIVED, message, slot))
                outcomes.append(Saved(key, Outcome.INSERTED, slot.version))
                continue
            verdict = compare(before, message, said_at)
            if verdict is Verdict.EDIT:
                after = self._edit(before, message, slot.version)
                written.append((EventType.EDITED, after, slot))
                outcomes.append(Saved(key, Outcome.EDITED, after.version))
                continue
            if verdict is Verdict.LATE:
                self._keep_revision(message, slot.version, RevisionReason.LATE_EDIT)
            elif verdict is Verdict.CONFIRMED:
                confirmed.append(message)
            outcomes.append(Saved(key, Outcome.DUPLICATE, before.version))
        if confirmed:
            self._confirm(confirmed)
        self._store(written)
        # Of duplicates, too: one that was stored before migrations were recorded tells it now.
        for migration in filter(None, map(told_by, batch)):
            record_told(self._connection, self._schema, migration)
        return outcomes

    def slots(self, keys: Sequence[MessageKey]) -> list[Slot]:
        """Look the keys up and draw a version for each; their channels are locked."""
        return [Slot(*row) for row in self.execute(_KEYS, **_arrays(keys))]

    def _stored_and_said(
        self, keys: Iterable[MessageKey]
    ) -> dict[MessageKey, tuple[Message, datetime | None]]:
        """Return those that are stored, each with the time when its content was last said again."""
        return {
            message.key: (message, said_at)
            for channel_id, ids in _by_channel(keys).items()
            for message, said_at in reading.with_said(
                self._connection, self._schema, channel_id, ids
            )
        }

    def _store(self, written: Iterable[tuple[EventType, Message, Slot]]) -> None:
        """Announce what was written, and store what is new of it by the same statements."""
        events = ((kind, _standing(kind, message, slot)) for kind, message, slot in written)
        try:
            self.announce(events, storing=True)
        except IntegrityError:
            # A partition that was there before has been dropped: the next try makes it again.
            self._partitions.forget()
            raise

    def _edit(self, before: Message, incoming: Message, version: int) -> Message:
        if not self._unbounded and before.sent_at < datetime.now(UTC) - NEVER_COMPRESSED:
            # Once a transaction, and only for what may be compressed: it has the lock already.
            self.lock({before.channel_id}, unbounded=True)
        self._keep_revision(before, before.version, RevisionReason.EDIT)
        after = attrs.evolve(
            incoming,
            sent_at=before.sent_at,
            source=before.source,
            status=before.status,
            version=version,
            received_at=before.received_at,
            deleted_at=before.deleted_at,
            delete_reason=before.delete_reason,
            status_reason=before.status_reason,
        )
        self.execute(_EDIT, **columns(after))
        return after

    def _confirm(self, messages: Sequence[Message]) -> None:
        """Note that what is stored was said again, and when: what is older than that is late."""
        self.execute(
            _CONFIRM,
            channel_id=array(message.channel_id for message in messages),
            message_id=array(message.message_id for message in messages),
            said_at=[message.edited_at for message in messages],
        )

    def _keep_revision(self, message: Message, version: int, reason: RevisionReason) -> None:
        self.execute(
            _REVISION,
            channel_id=message.channel_id,
            message_id=message.message_id,
            version=version,
            text=message.text,
            caption=message.caption,
            edited_at=message.edited_at,
            reason=reason.value,
        )

    def announce(
        self,
        events: Iterable[tuple[EventType, Message]],
        *,
        storing: bool = False,
    ) -> None:
        """Write the events of changed messages, and count these as changes of this transaction.

        `storing`, those that were just received are stored, too.
        """
        self._steps.settle()
        self._append(map(self._counted, events), self._trace(), storing=storing)

    def _append(
        self,
        events: Iterable[tuple[EventType, Message]],
        traceparent: str | None,
        *,
        storing: bool = False,
    ) -> None:
        heads = outbox.append(
            self._connection, self._schema, events, storing=storing, traceparent=traceparent
        )
        self._heads = {**heads, **self._heads}

    def find(self, channel_id: int, message_ids: Sequence[int]) -> list[Found]:
        """Lock the channel, and return those of its messages that are stored, in their order."""
        self._reserve({channel_id})
        found = self._steps.find(channel_id, message_ids)
        self.locked.add(channel_id)
        self._unbounded = True
        return found

    def change(self, events: Iterable[tuple[EventType, Message]], *, at_once: bool) -> None:
        """Have messages that were found stand as these do; see `Steps.add`.

        Behind a savepoint at once: what is refused when that is released cannot go back to it.
        """
        trace = self._trace()
        self._steps.add(
            (Step(*self._counted(event), trace) for event in events),
            at_once=at_once or bool(self.savepoints),
        )

    def _counted(self, event: tuple[EventType, Message]) -> tuple[EventType, Message]:
        kind, message = event
        # The cache patches its windows with a few; of many, the keys are enough (P11).
        kept = message if len(self.changes) < PATCHABLE else None
        self.changes.append(Change(message.key, message.version, kind, kept))
        return event

    def changed(self, changes: Sequence[Change], before: Mapping[int, int]) -> None:
        """Count what was done to messages without an event; the cache follows at the commit.

        `before` is the version that each channel had; the caller holds their locks.
        """
        self._heads = {**before, **self._heads}
        self.changes += changes

    def _trace(self) -> str | None:
        return self._traceparent or traces.current()

    def execute(self, statement: str, **values: Any) -> list[Any]:
        """Run a statement in this transaction; return its rows."""
        return fetch(self._connection, statement, self._schema, values)


def _arrays(keys: Iterable[MessageKey]) -> dict[str, str]:
    """The values of `_KEYS`."""
    channel_ids, message_ids = zip(*keys, strict=True)
    return {"channel_id": array(channel_ids), "message_id": array(message_ids)}


def _by_channel(keys: Iterable[MessageKey]) -> dict[int, list[int]]:
    by_channel: dict[int, list[int]] = {}
    for key in keys:
        by_channel.setdefault(key.channel_id, []).append(key.message_id)
    return by_channel


def _standing(kind: EventType, message: Message, slot: Slot) -> Message:
    """The message as it is stored now."""
    if kind is EventType.RECEIVED:
        return arrived(message, slot.version, slot.received_at)
    return message
