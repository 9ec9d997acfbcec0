"""A psycopg connection that somebody watches while it waits for the server."""

from __future__ import annotations

from collections.abc import Callable, Generator
from threading import RLock
from time import monotonic
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

#: Called some ten times a second with the seconds waited so far; it may raise.
Watch = Callable[["WatchedConnection", float], None]


class WatchedConnection(psycopg.Connection[Any]):
    """Calls `watch` while it waits for an answer; what that raises ends wait and connection.

    A socket alone does not tell a slow answer from one that never comes: the kernel of a stopped
    process goes on acknowledging. Session settings, which could limit a statement on the server,
    do not cross a transaction pooler (P9).
    """

    watch: Watch | None = None
    #: Called after each answer.
    answered: Callable[[], None] | None = None
    #: Called before anything else is said in the transaction that it was set in, until it is None,
    #: as it makes itself first of all: what is to be written and waits for more of its kind.
    owed: Callable[[], None] | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # What is owed is paid under it, by the thread that has it.
        self.lock = RLock()  # type: ignore[assignment]

    @property
    def failed(self) -> bool:
        """Whether its transaction can only be rolled back, to a savepoint at least."""
        return self.info.transaction_status is TransactionStatus.INERROR

    def rollback(self) -> None:
        """Roll back, with what is owed; see psycopg."""
        self.owed = None
        super().rollback()

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """Pay what is owed, and consume a generator of the protocol; see psycopg."""
        if self.owed is not None:
            self.owed()
        if self.closed:
            return super().wait(gen, *args, **options)
        try:
            wanted = next(gen)
        except StopIteration as end:  # of half of them: nothing is to be asked of the server
            return end.value
        return super().wait(self._watched(gen, wanted), *args, **options)

    def _watched(self, gen: Any, wanted: Any) -> Generator[Any, Any, Any]:
        """Pass everything through, and look at the clock whenever nothing was ready."""
        since = monotonic()
        try:
            while True:
                ready = yield wanted
                if not ready and self.watch is not None:
                    try:
                        self.watch(self, monotonic() - since)
                    except psycopg.Error:
                        self.pgconn.finish()
                        raise
                wanted = gen.send(ready)
        except StopIteration as end:
            if self.answered is not None:
                self.answered()
            return end.value
