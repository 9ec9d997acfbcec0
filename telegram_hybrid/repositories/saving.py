"""Saving messages inside a transaction: lock the channels, read what is there, decide, write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import attrs
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from telegram_hybrid.errors import UnknownChannel
from telegram_hybrid.model import (
    EventType,
    Message,
    MessageKey,
    Outcome,
    RevisionReason,
    Saved,
)
from telegram_hybrid.model.message import arrived
from telegram_hybrid.repositories import reading
from telegram_hybrid.repositories.batches import waves
from telegram_hybrid.repositories.decisions import Verdict, compare
from telegram_hybrid.repositories.inserting import columns
from telegram_hybrid.repositories.lineage import record_told, told_by
from telegram_hybrid.repositories.partitions import Partitions
from telegram_hybrid.repositories.steps import NEVER_COMPRESSED
from telegram_hybrid.repositories.writing import Slot, Writer
from telegram_hybrid.schema.postgres.sql import array

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


class Saver:
    """Saves messages by its transaction's writer.

    With `refuse_unknown`, messages of channels that are not registered are not saved.
    """

    def __init__(
        self,
        connection: Connection,
        schema: str,
        writer: Writer,
        partitions: Partitions,
        *,
        refuse_unknown: bool = False,
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._writer = writer
        self._partitions = partitions
        self._refuse_unknown = refuse_unknown

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
            slots = self._writer.slots(keys) if saved else self._begin(channel_ids, keys)
            try:
                outcomes = self._save_distinct(keys, batch, slots)
            except BaseException:
                self._writer.torn()  # an edit without its event, a change that was only counted
                raise
            saved.update(zip(wave, outcomes, strict=True))
        return [saved[position] for position in range(len(messages))]

    def _begin(self, channel_ids: set[int], keys: Sequence[MessageKey]) -> list[Slot]:
        slots = self._writer.lock_slots(channel_ids, keys)
        if self._refuse_unknown and (unknown := self._unknown(channel_ids)):
            raise UnknownChannel(unknown)
        return slots

    def _unknown(self, channel_ids: set[int]) -> list[int]:
        return [row[0] for row in self._writer.execute(_UNKNOWN, channel_ids=array(channel_ids))]

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

    def _store(self, written: Sequence[tuple[EventType, Message, Slot]]) -> None:
        """Announce what was written, and store what is new of it by the same statements."""
        events = ((kind, _standing(kind, message, slot)) for kind, message, slot in written)
        try:
            self._writer.announce(events, count=len(written), storing=True)
        except IntegrityError:
            # A partition that was there before has been dropped: the next try makes it again.
            self._partitions.forget()
            raise

    def _edit(self, before: Message, incoming: Message, version: int) -> Message:
        if before.sent_at < datetime.now(UTC) - NEVER_COMPRESSED:
            self._writer.unbind(before.channel_id)
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
        self._writer.execute(_EDIT, **columns(after))
        return after

    def _confirm(self, messages: Sequence[Message]) -> None:
        """Note that what is stored was said again, and when: what is older than that is late."""
        self._writer.execute(
            _CONFIRM,
            channel_id=array(message.channel_id for message in messages),
            message_id=array(message.message_id for message in messages),
            said_at=[message.edited_at for message in messages],
        )

    def _keep_revision(self, message: Message, version: int, reason: RevisionReason) -> None:
        self._writer.execute(
            _REVISION,
            channel_id=message.channel_id,
            message_id=message.message_id,
            version=version,
            text=message.text,
            caption=message.caption,
            edited_at=message.edited_at,
            reason=reason.value,
        )


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
