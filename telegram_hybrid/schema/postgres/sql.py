"""Statements as text: written with a "{schema}" in them, compiled once for each schema."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, TextClause, text
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.exc import DBAPIError


@lru_cache(maxsize=512)
def sql(statement: str, schema: str) -> TextClause:
    """Return `statement` for `schema`, which Settings has checked to be a plain name."""
    return text(statement.replace("{schema}", schema))


def fetch(
    connection: Connection, statement: str, schema: str, values: Mapping[str, Any]
) -> list[Any]:
    """Run a statement, as `connection.execute(sql(...))` does, by the driver; return its rows.

    For what is said for every message, where SQLAlchemy's own execution is much of the CPU that a
    writer burns. The connection is in a transaction, or in autocommit. Raises SQLAlchemy's errors;
    its events do not hear of the statement.
    """
    driver: Any = connection.connection.cursor()
    said = _for_driver(statement, schema)
    with _errors_of(connection, said):
        driver.execute(said, values)
        return _rows(driver)


def fetch_each(
    connection: Connection, statement: str, schema: str, values: Iterable[Mapping[str, Any]]
) -> list[list[Any]]:
    """Run a statement for each of `values`, as `fetch` does; return the rows of each.

    While the server works on one, the next values are made (psycopg's pipeline mode): what
    `values` does may take as long as the statement, at no cost in time. It must not use the
    connection.
    """
    wire: Any = connection.connection.dbapi_connection
    said = _for_driver(statement, schema)
    following = iter(values)
    first, second = next(following, None), next(following, None)
    if first is None:
        return []
    if second is None:
        return [fetch(connection, statement, schema, first)]
    cursors = []
    with _errors_of(connection, said), wire.pipeline():
        for each in chain((first, second), following):
            cursors.append(driver := wire.cursor())
            driver.execute(said, each)
    return [_rows(driver) for driver in cursors]


def _rows(driver: Any) -> list[Any]:
    return driver.fetchall() if driver.rownumber is not None else []


@contextmanager
def _errors_of(connection: Connection, said: str) -> Iterator[None]:
    """Raise SQLAlchemy's errors for the driver's; a lost connection leaves its pool."""
    base = connection.dialect.loaded_dbapi.Error
    try:
        yield
    except base as error:
        wire: Any = connection.connection.dbapi_connection
        if not wire.closed and wire.pgconn.pipeline_status:
            # It could not be ended: psycopg tells only that, and not what interrupted it.
            connection.invalidate(error)
            interruption = error.__context__
            if interruption is not None and not isinstance(interruption, Exception):
                raise interruption from None
        lost = connection.invalidated or connection.dialect.is_disconnect(error, wire, None)
        if lost and not connection.invalidated:
            connection.invalidate(error)
        raise DBAPIError.instance(
            said, None, error, base, connection_invalidated=lost, dialect=connection.dialect
        ) from error


def array(values: Iterable[int | UUID | None]) -> str:
    """Return an array as text, which is to be cast: the driver's own way takes far longer."""
    return "{" + ",".join("NULL" if each is None else str(each) for each in values) + "}"


@lru_cache(maxsize=512)
def _for_driver(statement: str, schema: str) -> str:
    dialect = psycopg.dialect()  # type: ignore[no-untyped-call]
    return str(sql(statement, schema).compile(dialect=dialect))
