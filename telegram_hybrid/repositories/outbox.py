"""The outbox as an operator meets it: what waits, why, and what is not to be published."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from time import sleep
from uuid import uuid4

from sqlalchemy import Connection

from telegram_hybrid.errors import NotFound
from telegram_hybrid.model import checks
from telegram_hybrid.outbox import claims, dead_letters, discarding, waiting
from telegram_hybrid.outbox.claims import Backlog
from telegram_hybrid.outbox.waiting import WaitingEvent

#: How often a shard may be snatched away from a discard.
_TRIES = 3


class Outbox:
    """Events that are not published yet; from `hybrid.outbox`. All raise `DatabaseError`."""

    def __init__(
        self, transaction: Callable[[], AbstractContextManager[Connection]], schema: str
    ) -> None:
        self._transaction = transaction
        self._schema = schema

    def list(
        self,
        *,
        channel_id: int | None = None,
        type: str | None = None,  # noqa: A002  (as everywhere else)
        refused: bool = False,
        limit: int = 100,
    ) -> list[WaitingEvent]:
        """Return the oldest events that wait, oldest first, without their payloads.

        Of this channel, and of this type, which is the topic of events of your own; with
        `refused`, those that the broker did not take. Raises `InvalidInput` naming the field.
        """
        if channel_id is not None:
            checks.channel_id("channel_id", channel_id)
        if type is not None:
            checks.text("type", type)
        checks.count("limit", limit, least=1, most=10_000)
        with self._transaction() as connection:
            return waiting.waiting(
                connection,
                self._schema,
                channel_id=channel_id,
                type=type,
                refused=refused,
                limit=limit,
            )

    def get(self, number: int) -> WaitingEvent | None:
        """Return the event of this number (its `sequence`) with its payload; None if it does not
        wait."""
        checks.count("id", number, least=1, most=2**63 - 1)
        with self._transaction() as connection:
            return waiting.get(connection, self._schema, number)

    def backlog(self) -> Backlog:
        """Count what waits; reads the whole outbox, so ask every few seconds at most."""
        with self._transaction() as connection:
            return claims.backlog(connection, self._schema)

    def retry(self, *, channel_id: int | None = None) -> int:
        """Have refused events tried at once, of one channel or all; return how many those are."""
        if channel_id is not None:
            checks.channel_id("channel_id", channel_id)
        with self._transaction() as connection:
            return waiting.retry(connection, self._schema, channel_id=channel_id)

    def discard(self, number: int, *, reason: str) -> int:
        """Have an event never published; its channel goes on. Return its dead letter's number.

        The letter is settled: it stays as history, with `reason`. At once for an event that the
        broker refused, unless it is about to be tried again. One that a relay may have in hand is
        taken from it, for which this waits until the relay's lease has ended (up to 15 seconds);
        what the broker has got by then is not taken back.

        Raises `NotFound` if it does not wait (any more), `InvalidInput` for an empty reason.
        """
        checks.count("id", number, least=1, most=2**63 - 1)
        dead_letters.checked_note(reason)
        owner = f"discard-{uuid4().hex}"
        for _ in range(_TRIES):
            with self._transaction() as connection:
                found = discarding.take(connection, self._schema, number, reason, owner)
            if isinstance(found, discarding.Fence):
                sleep(found.seconds)
                with self._transaction() as connection:
                    found = discarding.finish(
                        connection, self._schema, number, reason, owner, found
                    )
            if found is not None:
                return found
            if self.get(number) is None:
                break
        raise NotFound(f"event {number} does not wait: it was published, or is a dead letter")
