"""Writing inside a transaction: what saving, marking and all others do with their changes.

Every write of a channel holds that channel's lock until its commit. So what is read after the
lock is still true when it is written, versions and outbox ids are drawn in commit order, and
writers of one channel never deadlock over its keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import Connection

from telegram_hybrid.cache.writes import PATCHABLE, group
from telegram_hybrid.errors import NestedWrite
from telegram_hybrid.model import (
    Change,
    ChannelWrite,
    Event,
    EventType,
    Message,
    MessageKey,
)
from telegram_hybrid.observe import traces
from telegram_hybrid.outbox import rows as outbox
from telegram_hybrid.outbox.locks import lock_channels, lock_prefix
from telegram_hybrid.repositories.savepoints import Savepoints
from telegram_hybrid.repositories.steps import Found, Step, Steps
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
    """What every write of one open transaction goes through. Collects what it changed.

    `beside` are the writers of all transactions that its thread has open, now and later. Events
    carry `traceparent`, or else that of the span they happen in.
    """

    def __init__(
        self,
        connection: Connection,
        schema: str,
        beside: Sequence[Writer],
        traceparent: str | None = None,
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._beside = beside
        self._traceparent = traceparent
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

    def unbind(self, channel_id: int) -> None:
        """Allow any number of compressed messages to be changed; their channel is locked already.

        Once a transaction.
        """
        if not self._unbounded:
            self.lock({channel_id}, unbounded=True)

    @property
    def ended(self) -> bool:
        """Whether its transaction has."""
        return self._connection.closed

    def torn(self) -> None:
        """Something was written in part: nothing may be committed; see `Steps.torn`."""
        self._steps.torn()

    def _reserve(self, channel_ids: set[int]) -> None:
        # PostgreSQL sees no deadlock here: one side waits, the other is only idle.
        for other in self._beside:
            if other is not self and (both := other.locked & channel_ids):
                raise NestedWrite(
                    f"an open transaction of this thread has written to channel {min(both)}: "
                    "write through that transaction, or after its end"
                )

    def lock_slots(self, channel_ids: set[int], keys: Sequence[MessageKey]) -> list[Slot]:
        """`lock` and then `slots`, in one statement."""
        self._reserve(channel_ids)
        rows = self.execute(_LOCK_AND_LOOK, prefix=lock_prefix(self._schema), **_arrays(keys))
        self.locked |= channel_ids
        return [Slot(*row) for row in rows]

    def slots(self, keys: Sequence[MessageKey]) -> list[Slot]:
        """Look the keys up and draw a version for each; their channels are locked."""
        return [Slot(*row) for row in self.execute(_KEYS, **_arrays(keys))]

    def announce(
        self,
        events: Iterable[tuple[EventType, Message]],
        *,
        count: int,
        storing: bool = False,
    ) -> None:
        """Write the events of changed messages, and count these as changes of this transaction.

        `count` is how many they are. `storing`, those that were just received are stored, too.
        """
        self._steps.settle()
        counted = map(self._counted, events)
        self._append(counted, self._trace(), count=count, storing=storing)

    def _append(
        self,
        events: Iterable[tuple[EventType, Message]],
        traceparent: str | None,
        *,
        count: int = 0,
        storing: bool = False,
    ) -> None:
        heads = outbox.append(
            self._connection,
            self._schema,
            events,
            count=count,
            storing=storing,
            traceparent=traceparent,
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
