"""PostgreSQL: engines over psycopg 3, and the one place that maps its errors to ours."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import psycopg
import sqlalchemy
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, make_url

from telegram_hybrid.errors import (
    Closed,
    CommitUnknown,
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailable,
    SchemaMismatch,
    WriteConflict,
)
from telegram_hybrid.settings import Settings

_CONFLICTS = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
_NO_SCHEMA = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
)


def open_engine(
    settings: Settings, *, pooled: bool = True, application_name: str = "telegram_hybrid"
) -> Engine:
    """Return an engine; nothing connects before its first use.

    Without `pooled` every use opens a connection of its own, for rare work that must not wait
    for those who hold the pool's.

    No server-side prepared statements and no session settings, so that a transaction pooler may
    stand between (P9). Connecting gives up after 5 seconds.
    """
    url = _parsed(settings.database_url)
    # SQLAlchemy shows a URL's query as it is: passwords go another way to the driver.
    secrets = {name: value for name, value in url.query.items() if "password" in name.lower()}
    url = url.difference_update_query(secrets)
    pool: dict[str, Any] = (
        {"pool_size": settings.pool_size, "max_overflow": settings.pool_size}
        if pooled
        else {"poolclass": NullPool}
    )
    engine = create_engine(
        url,
        **pool,
        json_deserializer=msgspec.json.decode,
        connect_args={
            "prepare_threshold": None,
            "connect_timeout": 5,
            "application_name": application_name,
            **secrets,
        },
    )
    event.listen(engine, "connect", _note_process)
    event.listen(engine, "checkout", _refuse_closed)
    return engine


def shut(engine: Engine) -> None:
    """Close all connections, for good: the next use raises `Closed`. Shutting twice is fine."""
    if not event.contains(engine, "do_connect", _refuse_use):
        event.listen(engine, "do_connect", _refuse_use)
    engine.dispose()


def _refuse_use(*_: object) -> None:
    raise Closed("this Hybrid is closed; connect again")


def _parsed(text: str) -> sqlalchemy.URL:
    # Raised outside of every except block: the parser's own words may quote a password.
    with suppress(sqlalchemy.exc.ArgumentError, ValueError):
        return make_url(text).set(drivername="postgresql+psycopg")
    raise ConfigurationError(
        "TELEGRAM_DATABASE_URL: expected postgresql://[user:password@]host:port/database"
    )


def _note_process(_connection: object, record: Any) -> None:
    record.info["pid"] = os.getpid()


def _refuse_closed(connection: Any, record: Any, proxy: Any) -> None:
    """Have the pool replace a connection whose server has gone, without asking the server.

    A server that ends a connection closes its socket, which then is readable; an idle one that
    is well has nothing to say. SQLAlchemy's pre-ping costs three round trips for the same.

    A connection from before a fork is left to the parent: two processes that read one socket
    take each other's answers (SQLAlchemy, "Using Connection Pools with Multiprocessing").
    """
    if record.info["pid"] != os.getpid():
        record.dbapi_connection = proxy.dbapi_connection = None
        raise sqlalchemy.exc.DisconnectionError("made by another process")
    readable = select.poll()
    readable.register(connection.fileno(), select.POLLIN)
    if readable.poll(0):
        raise sqlalchemy.exc.DisconnectionError("the server has closed an idle connection")


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One READ COMMITTED transaction: committed at the clean end of the block, else rolled back.

    Raises `DatabaseUnavailable`, `WriteConflict` (both safe to run again), `CommitUnknown`,
    `SchemaMismatch` or `DatabaseError`, with the driver's error as the cause.
    """
    with translated_errors(engine):
        connection = engine.connect()
    with connection:
        with translated_errors(engine):
            begun = connection.begin()
        try:
            with translated_errors(engine):
                yield connection
        except BaseException:
            try:
                begun.rollback()
            except sqlalchemy.exc.SQLAlchemyError:
                # The server rolls back by itself when the connection ends; what went wrong
                # first is what the caller has to know.
                connection.invalidate()
            raise
        try:
            with translated_errors(engine):
                begun.commit()
        except DatabaseUnavailable as error:
            raise CommitUnknown(
                f"the connection to {_place(engine)} broke during the commit; save again: "
                "what is stored already will be a duplicate"
            ) from error


@contextmanager
def translated_errors(engine: Engine) -> Iterator[None]:
    """Raise our errors for SQLAlchemy's and psycopg's, naming the server, never the password."""
    try:
        yield
    except sqlalchemy.exc.DBAPIError as error:
        raise _translate(error, engine) from error
    except sqlalchemy.exc.TimeoutError as error:
        raise DatabaseUnavailable(
            f"no free connection to {_place(engine)} within the pool's timeout; "
            "raise Settings.pool_size or hold transactions shorter"
        ) from error


def _translate(error: sqlalchemy.exc.DBAPIError, engine: Engine) -> DatabaseError:
    cause = error.orig
    said = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    place = _place(engine)
    if isinstance(cause, _CONFLICTS) or _misses_partition(cause):
        return WriteConflict(f"{place}: {said}; the transaction was rolled back, run it again")
    if isinstance(cause, _NO_SCHEMA):
        return SchemaMismatch(f"{place}: {said}; run: python -m telegram_hybrid migrate up")
    if error.connection_invalidated or isinstance(
        cause, (psycopg.OperationalError, psycopg.InterfaceError)
    ):
        return DatabaseUnavailable(f"{place}: {said}")
    return DatabaseError(f"{place}: {said}")


def _misses_partition(cause: BaseException | None) -> bool:
    """Whether a row found no partition: the one such violation without a constraint's name."""
    return isinstance(cause, psycopg.errors.CheckViolation) and not cause.diag.constraint_name


def _place(engine: Engine) -> str:
    url = engine.url
    host = url.host or url.query.get("host", "localhost")
    return f"PostgreSQL at {host}{f':{url.port}' if url.port else ''}/{url.database or ''}"
