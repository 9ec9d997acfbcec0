"""Letterbox: dead letters as an operator meets them: list, look, replay, discard, drain.

A replay puts the event back into the outbox in one transaction with the letter's end. So it
reaches the queues as any other event does, in its channel's order behind what was committed
before, and a replay that is run twice, or twice at once, happens once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import attrs
import kombu
import msgspec
from sqlalchemy import Connection

from telegram_hybrid.connect.broker import close_quietly, is_amqp, translated_errors
from telegram_hybrid.delivery import letters
from telegram_hybrid.delivery.topology import declare_exchanges
from telegram_hybrid.errors import InvalidInput, NotFound
from telegram_hybrid.model import checks
from telegram_hybrid.outbox import dead_letters
from telegram_hybrid.outbox.dead_letters import (
    FIRST,
    UNREADABLE,
    Choice,
    Place,
    StoredLetter,
)
from telegram_hybrid.outbox.locks import lock_channels
from telegram_hybrid.schema.broker import Topology

#: Letters in one transaction, whose channels cannot be written to meanwhile.
BATCH = 200


@attrs.frozen(slots=True)
class Replayed:
    """How many letters were put back into the outbox, and which ones nobody can read yet."""

    events: int = 0
    unreadable: tuple[int, ...] = ()


@attrs.frozen(slots=True)
class Drained:
    """How many messages left the broker's dead-letter queue, and how many new rows that gave."""

    messages: int = 0
    letters: int = 0


class DeadLetters:
    """The dead letters of relays and consumers; from `hybrid.dead_letters`.

    Choose by `queue` ("" for those that were never published), `type`, `channel_id`, `since` and
    `until` (when they were given up: at or after, and before), and `reason` (a part of it). All
    raise `InvalidInput` for what cannot be, and `DatabaseError`.
    """

    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[Connection]],
        schema: str,
        broker: Callable[[], kombu.Connection] | None,
        topology: Topology,
    ) -> None:
        self._transaction = transaction
        self._schema = schema
        self._broker = broker
        self._topology = topology

    def count(self, **choice: Any) -> int:
        """Count the open letters of a choice."""
        wanted = _choice(choice)
        with self._transaction() as connection:
            return dead_letters.count_chosen(connection, self._schema, wanted)

    def list(
        self,
        *,
        settled: bool = False,
        limit: int = 100,
        before: int | None = None,
        **choice: Any,
    ) -> list[StoredLetter]:
        """Return the newest open letters (or settled ones), newest first.

        For the next page give `before` the last one's id.
        """
        wanted = _choice(choice)
        checks.count("limit", limit, most=10_000)
        bound = 2**63 - 1 if before is None else dead_letters.checked_id(before)
        with self._transaction() as connection:
            return dead_letters.list_letters(
                connection, self._schema, wanted, settled=settled, limit=limit, before=bound
            )

    def get(self, letter_id: int) -> StoredLetter | None:
        """Return one letter, open or settled, or None."""
        dead_letters.checked_id(letter_id)
        with self._transaction() as connection:
            return dead_letters.get(connection, self._schema, letter_id)

    def replay(self, letter_id: int) -> bool:
        """Put one event back into the outbox; False if its letter is settled already.

        Raises `NotFound`, or `InvalidInput` if this version cannot read the message either.
        """
        letter = self.get(letter_id)
        if letter is None:
            raise NotFound(f"there is no dead letter {letter_id}")
        done = self._replay([(letter.channel_id, letter.sequence, letter.id)])
        if done.unreadable:
            _readable(letter)  # says why not
        return done.events == 1

    def replay_all(
        self, *, progress: Callable[[int], object] | None = None, **choice: Any
    ) -> Replayed:
        """Put all open letters of a choice back into the outbox, by channel and sequence.

        A few hundred in a transaction: what is interrupted goes on where it was, if it is run
        again. Letters that this version cannot read stay open. `progress` is called with how many
        have been looked at.
        """
        wanted = _choice(choice)
        total, after, seen = Replayed(), FIRST, 0
        while True:
            with self._transaction() as connection:
                places = dead_letters.chosen(
                    connection, self._schema, wanted, after=after, limit=BATCH
                )
            if not places:
                return total
            done = self._replay(places)
            total = Replayed(total.events + done.events, total.unreadable + done.unreadable)
            after, seen = places[-1], seen + len(places)
            if progress is not None:
                progress(seen)

    def discard(self, letter_id: int, *, reason: str) -> bool:
        """Close one letter without a replay; `reason` is kept with it. False if it is closed.

        Raises `NotFound`, and `InvalidInput` for an empty reason.
        """
        dead_letters.checked_note(reason)
        if self.get(letter_id) is None:
            raise NotFound(f"there is no dead letter {letter_id}")
        return self._discard([letter_id], reason) == 1

    def discard_all(self, *, why: str, **choice: Any) -> int:
        """Close all open letters of a choice; `why` is kept with each. Returns how many."""
        wanted = _choice(choice)
        dead_letters.checked_note(why)
        closed, after = 0, FIRST
        while True:
            with self._transaction() as connection:
                places = dead_letters.chosen(
                    connection, self._schema, wanted, after=after, limit=BATCH
                )
            if not places:
                return closed
            closed += self._discard([place[2] for place in places], why)
            after = places[-1]

    def drain(self, *, limit: int | None = None) -> Drained:
        """Move what waits in the broker's dead-letter queue into rows, up to `limit` messages.

        What consumers rejected has its row already and just leaves the queue. What the broker gave
        up by itself (delivery limit, length, age) becomes a letter of the queue where it died.
        Each message is acknowledged after its row is committed. On Redis there is no such queue.
        Raises `BrokerError`.
        """
        if self._broker is None:
            return Drained()
        connection = self._broker()
        try:
            if not is_amqp(connection):
                return Drained()
            with translated_errors(connection):
                channel = connection.channel()
            declare_exchanges(connection, channel, self._topology)
            done = Drained()
            while limit is None or done.messages < limit:
                with translated_errors(connection):
                    message = channel.basic_get(self._topology.dead_letter_queue)
                if message is None:
                    break
                new = self._keep(message)
                with translated_errors(connection):
                    channel.basic_ack(message.delivery_tag)
                done = Drained(done.messages + 1, done.letters + new)
            return done
        finally:
            close_quietly(connection)

    def _keep(self, message: Any) -> bool:
        headers = dict(message.headers or {})
        death = letters.death_of(headers, self._topology.dead_letter_queue)
        identity = message.properties.get("message_id") or ""
        key = str((message.delivery_info or {}).get("routing_key") or "")
        letter = letters.of_message(message.body or "", headers, identity, key)
        with self._transaction() as connection:
            return dead_letters.bury_once(
                connection,
                self._schema,
                letter,
                queue=death.queue,
                attempts=death.count,
                reason=death.told(),
                rejected=death.rejected,
            )

    def _replay(self, places: Sequence[Place]) -> Replayed:
        with self._transaction() as connection:
            # Before the rows: a writer's numbers and ours are drawn in the order of commits.
            lock_channels(connection, self._schema, {channel for channel, _, _ in places})
            held = dead_letters.hold(connection, self._schema, [place[2] for place in places])
            readable, unreadable = [], []
            for letter in held:
                try:
                    readable.append(_readable(letter))
                except InvalidInput:
                    unreadable.append(letter.id)
            if readable:
                dead_letters.revive(connection, self._schema, readable)
                ids = [letter.id for letter in readable]
                dead_letters.replayed(connection, self._schema, ids)
        return Replayed(len(readable), tuple(unreadable))

    def _discard(self, ids: Sequence[int], why: str) -> int:
        with self._transaction() as connection:
            return dead_letters.discard(connection, self._schema, ids, why)


def _choice(named: dict[str, Any]) -> Choice:
    known = {field.name for field in attrs.fields(Choice)}
    for name in named:
        if name not in known:
            raise InvalidInput(name, f"letters are chosen by {', '.join(sorted(known))}")
    return Choice(**named)


class _Unread(msgspec.Struct):
    body: str
    headers: dict[str, Any]


def _readable(letter: StoredLetter) -> StoredLetter:
    """The letter as an event; an unreadable message may be one to this version of the library.

    Raises `InvalidInput`.
    """
    if letter.type != UNREADABLE:
        return letter
    message = msgspec.json.decode(letter.payload, type=_Unread)
    record = letters.opened(message.body, message.headers)
    if record.channel_id != letter.channel_id:  # of which we hold the lock
        raise InvalidInput(
            "channel_id", f"the message says {record.channel_id}, its letter {letter.channel_id}"
        )
    return attrs.evolve(letter, **attrs.asdict(record))
