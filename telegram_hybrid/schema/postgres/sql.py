"""Statements as text: written with a "{schema}" in them, compiled once for each schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any, NoReturn
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
    wire: Any = connection.connection.dbapi_connection
    said = _for_driver(statement, schema)
    try:
        return _rows(wire.execute(said, values))
    except connection.dialect.loaded_dbapi.Error as error:
        _raise_sqlalchemys(connection, wire, said, error)


def fetch_each(
    connection: Connection, statement: str, schema: str, values: Iterable[Mapping[str, Any]]
) -> list[list[Any]]:
    """Run a statement for each of `values`, as `fetch` does; return the rows of each.

    While the server works on one, the next values are made (psycopg's pipeline mode): what
    `values` does may take as long as the statement, at no cost in time. It must not use the
    connection.
    """
    following = iter(values)
    first, second = next(following, None), next(following, None)
    if first is None:
        return []
    if second is None:
        return [fetch(connection, statement, schema, first)]
    wire: Any = connection.connection.dbapi_connection
    said = _for_driver(statement, schema)
    try:
        with wire.pipeline():
            cursors = [wire.execute(said, each) for each in chain((first, second), following)]
    except connection.dialect.loaded_dbapi.Error as error:
        _raise_sqlalchemys(connection, wire, said, error)
    return [_rows(driver) for driver in cursors]


def _rows(driver: Any) -> list[Any]:
    return driver.fetchall() if driver.rownumber is not None else []


def _raise_sqlalchemys(connection: Connection, wire: Any, said: str, error: Any) -> NoReturn:
    """Raise SQLAlchemy's error for the driver's; a lost connection leaves its pool."""
    if not wire.closed and wire.pgconn.pipeline_status:
        # It could not be ended: psycopg tells only that, and not what interrupted it.
        connection.invalidate(error)
        interruption = error.__context__
        if interruption is not None and not isinstance(interruption, Exception):
            raise interruption from None
    lost = connection.invalidated or connection.dialect.is_disconnect(error, wire, None)
    if lost and not connection.invalidated:
        connection.invalidate(error)
    base = connection.dialect.loaded_dbapi.Error
    raise DBAPIError.instance(
        said, None, error, base, connection_invalidated=lost, dialect=connection.dialect
    ) from error


def array(values: Iterable[int | UUID | str | None]) -> str:
    """Return an array as text, which is to be cast: the driver's own way takes far longer.

    Of words that stand in it as they are, such as those of our enums: nothing is quoted.
    """
    return "{" + ",".join("NULL" if each is None else str(each) for each in values) + "}"


@lru_cache(maxsize=512)
def _for_driver(statement: str, schema: str) -> str:
    dialect = psycopg.dialect()  # type: ignore[no-untyped-call]
    return str(sql(statement, schema).compile(dialect=dialect))
