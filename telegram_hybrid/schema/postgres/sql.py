"""Statements as text: written with a "{schema}" in them, compiled once for each schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
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
    try:
        driver.execute(said, values)
        return driver.fetchall() if driver.rownumber is not None else []
    except connection.dialect.loaded_dbapi.Error as error:
        wire = connection.connection.dbapi_connection
        lost = connection.dialect.is_disconnect(error, wire, driver)
        if lost:
            connection.invalidate(error)
        base = connection.dialect.loaded_dbapi.Error
        raise DBAPIError.instance(
            said, dict(values), error, base, connection_invalidated=lost, dialect=connection.dialect
        ) from error


def array(values: Iterable[int | UUID | None]) -> str:
    """Return an array as text, which is to be cast: the driver's own way takes far longer."""
    return "{" + ",".join("NULL" if each is None else str(each) for each in values) + "}"


@lru_cache(maxsize=512)
def _for_driver(statement: str, schema: str) -> str:
    dialect = psycopg.dialect()  # type: ignore[no-untyped-call]
    return str(sql(statement, schema).compile(dialect=dialect))
