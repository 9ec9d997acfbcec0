"""PostgreSQL: engines over psycopg 3, and the one place that maps its errors to ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import psycopg
import sqlalchemy
from sqlalchemy import Connection, Engine, NullPool, create_engine, make_url

from telegram_hybrid.connect.postgres.refusals import advice, first_line, hint, is_unresolved
from telegram_hybrid.connect.postgres.router import Router, Way
from telegram_hybrid.connect.postgres.routes import Route
from telegram_hybrid.errors import (
    Closed,
    CommitUnknown,
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailable,
    HybridError,
    IllegalTransition,
    SchemaMismatch,
    WriteConflict,
)
from telegram_hybrid.settings import Settings

_CONFLICTS = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
#: What the trigger on `messages` says of a step that `status_transitions` does not have.
ILLEGAL_STEP = "TH001"
#: Class 54 and configuration_limit_exceeded: too big or too deep, and so it will be the next time.
_PROGRAM_LIMIT = ("54", "53400")
_NO_SCHEMA = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
)


__all__ = [
    "Route",
    "address",
    "connected",
    "open_engine",
    "reads",
    "route",
    "shut",
    "transaction",
    "translated_errors",
]

_FAILED = (
    "a statement of this transaction failed, so nothing of it was committed: "
    "what may fail belongs behind a savepoint, connection.begin_nested()"
)
#: SQLAlchemy's code for a statement on a connection that was lost in this transaction.
_LOST_BEFORE = "8s2b"
_ROUTER = "telegram_hybrid_router"


def open_engine(
    settings: Settings,
    *,
    pooled: bool = True,
    direct: bool = False,
    deadline: float | None = None,
    application_name: str = "telegram_hybrid",
) -> Engine:
    """Return an engine; nothing connects before its first use.

    Connections go through PgBouncer if `Settings.pooler_url` names one, past it while it fails,
    and through it again within 5 seconds of its return. What was not safe to repeat, a statement
    that was under way, fails with `DatabaseUnavailable`. No server-side prepared statements and
    no session settings (P9).

    Without `pooled` every use opens a connection of its own, for rare work that must not wait
    for those who hold the pool's. `direct` is for what no transaction pooler carries (migrations,
    LISTEN): past the pooler, and without a limit for a statement's time. Looking for a connection
    is repeated for `deadline` seconds (None: `Settings.connect_timeout`; 0: not at all).

    Raises `ConfigurationError` for a URL that is none.
    """
    options = {"prepare_threshold": None, "application_name": application_name}
    ways = {Route.DIRECT: _way(settings.database_url, "TELEGRAM_DATABASE_URL", options)}
    if settings.pooler_url is not None and not direct:
        ways[Route.POOLER] = _way(settings.pooler_url, "TELEGRAM_PGBOUNCER_URL", options)
    pool: dict[str, Any] = (
        {"pool_size": settings.pool_size, "max_overflow": settings.pool_size}
        if pooled
        else {"poolclass": NullPool}
    )
    router = Router(
        ways,
        deadline=settings.connect_timeout if deadline is None else deadline,
        statement_timeout=None if direct else settings.statement_timeout,
    )
    engine = create_engine(
        ways[Route.DIRECT].url,
        **pool,
        json_deserializer=msgspec.json.decode,
        execution_options={_ROUTER: router},
    )
    router.attach(engine)
    return engine


def shut(engine: Engine) -> None:
    """Close all connections, for good: the next use raises `Closed`. Shutting twice is fine."""
    _router(engine).shut = True
    engine.dispose()


def route(engine: Engine) -> tuple[Route, str | None]:
    """Say which way serves at this moment, and what keeps the pooler from it, if anything.

    Raises `Closed` after `shut`.
    """
    router = _router(engine)
    if router.shut:
        raise Closed("this Hybrid is closed; connect again")
    return router.routes.serving, router.routes.trouble


def _router(engine: Engine) -> Router:
    router: Router = engine.get_execution_options()[_ROUTER]
    return router


def _way(text: str, setting: str, options: dict[str, Any]) -> Way:
    url = _parsed(text, setting)
    # SQLAlchemy shows a URL's query as it is: passwords go another way to the driver.
    secrets = {name: value for name, value in url.query.items() if "password" in name.lower()}
    return Way(url.difference_update_query(secrets), {**options, **secrets})


def _parsed(text: str, setting: str) -> sqlalchemy.URL:
    # Raised outside of every except block: the parser's own words may quote a password.
    with suppress(sqlalchemy.exc.ArgumentError, ValueError):
        return make_url(text).set(drivername="postgresql+psycopg")
    raise ConfigurationError(f"{setting}: expected postgresql://[user:password@]host:port/database")


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One READ COMMITTED transaction: committed at the clean end of the block, else rolled back.

    Raises `DatabaseUnavailable`, `WriteConflict` (both safe to run again), `CommitUnknown`,
    `SchemaMismatch` or `DatabaseError`, with the driver's error as the cause. A block that ends
    cleanly though one of its statements failed raises `DatabaseError`: PostgreSQL would take a
    commit for a rollback, and say nothing.
    """
    with connected(engine) as connection:
        begun = connection.begin()
        try:
            yield connection
            _check_committable(connection, engine)
        except BaseException as error:
            try:
                begun.rollback()
            except sqlalchemy.exc.SQLAlchemyError:
                # The server rolls back by itself when the connection ends; what went wrong
                # first is what the caller has to know.
                connection.invalidate()
            _raise_ours(error, engine)
            raise
        try:
            with translated_errors(engine):
                begun.commit()
        except DatabaseUnavailable as error:
            raise CommitUnknown(
                f"the connection to {_place(engine)} broke during the commit; save again: "
                "what is stored already will be a duplicate"
            ) from error


def _check_committable(connection: Connection, engine: Engine) -> None:
    """Raise if somebody swallowed the error that ended the transaction."""
    if connection.invalidated:
        raise _lost(engine)
    driver: Any = connection.connection.dbapi_connection
    if driver.failed:
        raise DatabaseError(f"{_place(engine)}: {_FAILED}")


def _lost(engine: Engine) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"{_place(engine)}: the connection was lost, and nothing of this transaction committed"
    )


@contextmanager
def reads(engine: Engine) -> Iterator[Connection]:
    """A connection on which each statement is a transaction of its own; raises what those do."""
    connection = autocommitting(connected(engine))
    try:
        yield connection
    except sqlalchemy.exc.SQLAlchemyError as error:
        _raise_ours(error, engine)
        raise
    finally:
        release(connection)


def autocommitting(connection: Connection) -> Connection:
    """Have each statement on this connection be a transaction of its own, until `release`.

    SQLAlchemy's isolation_level="AUTOCOMMIT" sets the same, and twice as much beside it that is
    put back with the connection: it was a third of what a read took outside of the server.
    """
    driver: Any = connection.connection.dbapi_connection
    driver.autocommit = True
    return connection


def release(connection: Connection) -> None:
    """Give back a connection that was `autocommitting`, as it came from its pool."""
    if not connection.invalidated:
        driver: Any = connection.connection.dbapi_connection
        try:
            driver.autocommit = False
        except psycopg.Error:
            connection.invalidate()  # it has ended, or is amid a statement
    connection.close()


def connected(engine: Engine) -> Connection:
    """Return a connection of the pool, with nothing begun. Raises as `transaction` does."""
    try:
        return engine.connect()
    except sqlalchemy.exc.InvalidRequestError as error:
        # The pool replaced a connection that had ended, and the new one had ended, too.
        raise DatabaseUnavailable(
            f"{_place(engine)}: ends connections as soon as they are opened"
        ) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        _raise_ours(error, engine)
        raise


@contextmanager
def translated_errors(engine: Engine) -> Iterator[None]:
    """Raise our errors for SQLAlchemy's and psycopg's, naming the server, never the password."""
    try:
        yield
    except sqlalchemy.exc.SQLAlchemyError as error:
        _raise_ours(error, engine)
        raise


def _raise_ours(error: BaseException, engine: Engine) -> None:
    """Raise the error of ours for one of SQLAlchemy's, if there is one."""
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        raise _translate(error, engine) from error
    if isinstance(error, sqlalchemy.exc.PendingRollbackError) and error.code == _LOST_BEFORE:
        raise _lost(engine) from error
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        raise DatabaseUnavailable(
            f"no free connection to {_place(engine)} within the pool's timeout; "
            "raise Settings.pool_size or hold transactions shorter"
        ) from error


def _translate(error: sqlalchemy.exc.DBAPIError, engine: Engine) -> HybridError:
    cause, place = error.orig, _place(engine)
    said = first_line(cause)
    if isinstance(cause, _CONFLICTS) or _misses_partition(cause):
        return WriteConflict(f"{place}: {said}; the transaction was rolled back, run it again")
    if getattr(cause, "sqlstate", None) == ILLEGAL_STEP:
        return IllegalTransition(f"{place}: {said}")
    if isinstance(cause, _NO_SCHEMA):
        return SchemaMismatch(f"{place}: {said}; run: python -m telegram_hybrid migrate up")
    if isinstance(cause, psycopg.errors.InFailedSqlTransaction):
        return DatabaseError(f"{place}: {_FAILED}")
    if isinstance(cause, psycopg.errors.QueryCanceled):
        return DatabaseUnavailable(f"{place}: {said}; Settings.statement_timeout limits it")
    # What breaks a connection that was there is no refusal, whatever its words ("SSL error: ...").
    if error.connection_invalidated:
        return DatabaseUnavailable(f"{place}: {said}")
    if getattr(cause, "sqlstate", None) is None and (words := advice(cause)):
        passing = is_unresolved(cause) or _router(engine).awaits_pooler()
        kind = DatabaseUnavailable if passing else DatabaseError
        return kind(f"{place}: {said}; {words}")
    if (getattr(cause, "sqlstate", None) or "").startswith(_PROGRAM_LIMIT):
        return DatabaseError(f"{place}: {said}")
    if isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError)):
        words = hint(cause) if getattr(cause, "sqlstate", None) is None else None
        return DatabaseUnavailable(f"{place}: {said}{f'; {words}' if words else ''}")
    return DatabaseError(f"{place}: {said}")


def _misses_partition(cause: BaseException | None) -> bool:
    """Whether a row found no partition: the one such violation without a constraint's name."""
    return isinstance(cause, psycopg.errors.CheckViolation) and not cause.diag.constraint_name


def _place(engine: Engine) -> str:
    router = _router(engine)
    place = f"PostgreSQL at {address(router.ways[Route.DIRECT].url)}"
    if Route.POOLER not in router.ways:
        return place
    trouble = router.routes.trouble
    pooler = f"PgBouncer at {address(router.ways[Route.POOLER].url)}"
    return f"{place} ({pooler}{f': {trouble}' if trouble else ''})"


def address(url: sqlalchemy.URL) -> str:
    """Return host, port and database, without user and password."""
    host = url.host or url.query.get("host", "localhost")
    return f"{host}{f':{url.port}' if url.port else ''}/{url.database or ''}"
