"""A line: one connection, kept by one thread for statements that commit themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from sqlalchemy import Connection, Engine

from telegram_hybrid.connect.postgres import (
    autocommitting,
    connected,
    release,
    translated_errors,
)

#: Seconds after which a line goes back to the pool, which then gives one of the way that serves.
KEPT = 1.0


class Line:
    """For a thread that sends many short statements, alone.

    To take a connection from the pool and give it back takes as long as such a statement.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._until = 0.0

    @contextmanager
    def __call__(self) -> Iterator[Connection]:
        """The connection, on which each statement is a transaction of its own.

        Raises as `connect.postgres.transaction` does; after any error the next use takes another
        connection.
        """
        if monotonic() >= self._until:
            self.close()
        with translated_errors(self._engine):
            try:
                if self._connection is None:
                    self._connection = autocommitting(connected(self._engine))
                    self._until = monotonic() + KEPT
                yield self._connection
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Give the connection back; legal at any time, and again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            release(connection)
