"""What is said straight to the driver: the same rows and the same errors as by SQLAlchemy."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from telegram_hybrid import Hybrid
from telegram_hybrid.connect import postgres
from telegram_hybrid.errors import DatabaseError, DatabaseUnavailable, SchemaMismatch
from telegram_hybrid.schema.postgres.sql import fetch, sql

pytestmark = pytest.mark.integration

MANY = """
SELECT n, CAST(:words AS text[]), '{"a": [1]}'::jsonb, 'is 5% of it' LIKE '%5\\%%', :nothing
FROM generate_series(1, :last) AS n
"""
VALUES = {"words": ["one", "two"], "nothing": None, "last": 3}


def test_rows_are_those_that_sqlalchemy_gives(hybrid: Hybrid) -> None:
    with hybrid.transaction() as tx:
        expected = tx.connection.execute(sql(MANY, "public"), VALUES).all()
        assert fetch(tx.connection, MANY, "public", VALUES) == [tuple(row) for row in expected]
        assert expected[2] == (3, ["one", "two"], {"a": [1]}, True, None)


def test_what_returns_no_rows_returns_none(hybrid: Hybrid) -> None:
    with hybrid.transaction() as tx:
        assert fetch(tx.connection, "CREATE TEMP TABLE gone (n int)", "public", {}) == []
        assert fetch(tx.connection, "SELECT n FROM gone", "public", {}) == []


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("INSERT INTO {schema}.channels (channel_id) VALUES (-1), (-1)", IntegrityError),
        ("SELECT nobody_knows_this", ProgrammingError),
    ],
)
def test_an_error_is_sqlalchemys_and_the_connection_goes_on(
    hybrid: Hybrid, statement: str, kind: type[DBAPIError]
) -> None:
    # Broken on purpose: letting the driver's error through.
    schema = hybrid.settings.database_schema
    with hybrid.engine.connect() as connection:
        with connection.begin() as begun:
            with pytest.raises(kind) as raised:
                fetch(connection, statement, schema, {})
            begun.rollback()
        with connection.begin() as begun:
            with pytest.raises(kind) as expected:
                connection.execute(sql(statement, schema))
            begun.rollback()
        with connection.begin():
            assert fetch(connection, "SELECT 1", schema, {}) == [(1,)]
    assert str(raised.value.orig) == str(expected.value.orig)
    assert not raised.value.connection_invalidated


def test_an_error_is_translated_where_it_leaves_the_transaction(hybrid: Hybrid) -> None:
    with pytest.raises(SchemaMismatch), hybrid.transaction() as tx:
        fetch(tx.connection, "SELECT * FROM {schema}.not_there", "public", {})


def test_what_is_too_big_for_the_server_is_not_called_unavailable(hybrid: Hybrid) -> None:
    # Broken on purpose: as DatabaseUnavailable, whoever waits for the server to come back tried a
    # message that it cannot store for ever.
    with pytest.raises(DatabaseError) as refused, hybrid.transaction() as tx:
        fetch(tx.connection, "SELECT repeat('x', 2000000000)", "public", {})
    assert not isinstance(refused.value, DatabaseUnavailable)


def test_a_connection_that_breaks_is_not_used_again(hybrid: Hybrid) -> None:
    # Broken on purpose: without `invalidate` the lost connection counted as good.
    with pytest.raises(DatabaseUnavailable), postgres.transaction(hybrid.engine) as connection:
        ((pid,),) = fetch(connection, "SELECT pg_backend_pid()", "public", {})
        with hybrid.engine.begin() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        time.sleep(0.1)
        with pytest.raises(DBAPIError) as broken:
            fetch(connection, "SELECT 1", "public", {})
        assert broken.value.connection_invalidated
        assert connection.invalidated
        raise broken.value
    with postgres.transaction(hybrid.engine) as connection:
        assert fetch(connection, "SELECT 1", "public", {}) == [(1,)]


def test_a_wait_that_is_interrupted_ends_the_connection(hybrid: Hybrid) -> None:
    # Broken on purpose: with pool_reset_on_return=None the pool took it back amid a statement.
    class Stop(BaseException):
        pass

    def interrupt(connection: Any, _: float) -> None:
        connection.watch = None
        raise Stop

    with pytest.raises(Stop), postgres.reads(hybrid.engine) as connection:
        driver: Any = connection.connection.driver_connection
        driver.watch = interrupt
        fetch(connection, "SELECT pg_sleep(0.5)", "public", {})
    assert driver.closed
    with postgres.reads(hybrid.engine) as connection:
        assert fetch(connection, "SELECT 2", "public", {}) == [(2,)]
