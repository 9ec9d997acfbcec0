"""LISTEN: what other sessions notify, for a thread that waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from typing import Any, cast

import psycopg
from sqlalchemy import Engine

from telegram_hybrid.connect.postgres import address, connected, translated_errors
from telegram_hybrid.errors import DatabaseUnavailable

#: Seconds between two looks at whether to stop.
_LOOK = 0.25


def notifications(engine: Engine, topic: str, stop: Event) -> Iterator[None]:
    """Yield once as soon as `topic` is listened to, and then whenever something was notified.

    Holds one connection until `stop` is set. `engine` is direct: through a transaction pooler
    notifications reach another client (P9). Raises `DatabaseError`.
    """
    with connected(engine) as connection:
        with translated_errors(engine):
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql(f'LISTEN "{topic}"')
        yield
        driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        try:
            while not stop.is_set():
                for _ in driver.notifies(timeout=_LOOK, stop_after=1):
                    yield
        except psycopg.Error as error:
            connection.invalidate()
            raise DatabaseUnavailable(
                f"PostgreSQL at {address(engine.url)}: the connection that listens is lost"
            ) from error
