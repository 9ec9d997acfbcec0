"""What is said straight to the driver: the same rows and the same errors as by SQLAlchemy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from telegram_hybrid import Hybrid
from telegram_hybrid.connect import postgres
from telegram_hybrid.errors import DatabaseError, DatabaseUnavailable, SchemaMismatch
from telegram_hybrid.schema.postgres.sql import fetch, fetch_each, sql

pytestmark = pytest.mark.integration

MANY = """
SELECT n, CAST(:words AS text[]), '{"a": [1]}'::jsonb, 'is 5% of it' LIKE '%5\\%%', :nothing
FROM generate_series(1, :last) AS n
"""
VALUES = {"words": ["one", "two"], "nothing": None, "last": 3}


def twice(connection: Connection, statement: str, schema: str, values: dict[str, Any]) -> list[Any]:
    """The second rows of `fetch_each`, given the same values twice."""
    first, second = fetch_each(connection, statement, schema, [values, values])
    assert len(first) == len(second)
    return second


ways = pytest.mark.parametrize("run", [fetch, twice])


Run = Callable[[Connection, str, str, dict[str, Any]], list[Any]]


@ways
def test_rows_are_those_that_sqlalchemy_gives(hybrid: Hybrid, run: Run) -> None:
    with hybrid.transaction() as tx:
        expected = tx.connection.execute(sql(MANY, "public"), VALUES).all()
        assert run(tx.connection, MANY, "public", VALUES) == [tuple(row) for row in expected]
        assert expected[2] == (3, ["one", "two"], {"a": [1]}, True, None)


def test_what_returns_no_rows_returns_none(hybrid: Hybrid) -> None:
    with hybrid.transaction() as tx:
        assert fetch(tx.connection, "CREATE TEMP TABLE gone (n int)", "public", {}) == []
        assert fetch(tx.connection, "SELECT n FROM gone", "public", {}) == []


def test_the_next_values_are_made_while_the_server_works(hybrid: Hybrid) -> None:
    # Broken on purpose: without pipeline mode the two times add up.
    def slowly() -> Iterator[dict[str, Any]]:
        for number in range(5):
            time.sleep(0.2)
            yield {"number": number}

    with hybrid.transaction() as tx:
        began = time.monotonic()
        statement = "SELECT CAST(:number AS integer), pg_sleep(0.2)"
        found = fetch_each(tx.connection, statement, "public", slowly())
        took = time.monotonic() - began
        assert [rows[0][0] for rows in found] == list(range(5))
    assert 1.1 < took < 1.7, f"{took:.2f} s, of which 1.2 are the least and 2.0 one by one"


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_there_are_rows_for_each_of_the_values(hybrid: Hybrid, count: int) -> None:
    values = [{"n": n} for n in range(count)]
    with hybrid.transaction() as tx:
        found = fetch_each(tx.connection, "SELECT CAST(:n AS integer)", "public", values)
        assert found == [[(n,)] for n in range(count)]
        assert fetch(tx.connection, "SELECT 1", "public", {}) == [(1,)]


def test_values_that_cannot_be_made_leave_a_connection_that_goes_on(hybrid: Hybrid) -> None:
    def failing() -> Iterator[dict[str, Any]]:
        yield {"n": 1}
        yield {"n": 2}
        raise LookupError("no third")

    with hybrid.transaction() as tx:
        with pytest.raises(LookupError, match="no third"):
            fetch_each(tx.connection, "SELECT CAST(:n AS integer)", "public", failing())
        assert fetch(tx.connection, "SELECT 3", "public", {}) == [(3,)]


@ways
@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("INSERT INTO {schema}.channels (channel_id) VALUES (-1), (-1)", IntegrityError),
        ("SELECT nobody_knows_this", ProgrammingError),
    ],
)
def test_an_error_is_sqlalchemys_and_the_connection_goes_on(
    hybrid: Hybrid, run: Run, statement: str, kind: type[DBAPIError]
) -> None:
    # Broken on purpose: letting the driver's error through.
    schema = hybrid.settings.database_schema
    with hybrid.engine.connect() as connection:
        with connection.begin() as begun:
            with pytest.raises(kind) as raised:
                run(connection, statement, schema, {})
            begun.rollback()
        with connection.begin() as begun:
            with pytest.raises(kind) as expected:
                connection.execute(sql(statement, schema))
            begun.rollback()
        with connection.begin():
            assert fetch(connection, "SELECT 1", schema, {}) == [(1,)]
    assert str(raised.value.orig) == str(expected.value.orig)
    assert not raised.value.connection_invalidated


@ways
def test_an_error_is_translated_where_it_leaves_the_transaction(hybrid: Hybrid, run: Run) -> None:
    with pytest.raises(SchemaMismatch), hybrid.transaction() as tx:
        run(tx.connection, "SELECT * FROM {schema}.not_there", "public", {})


def test_what_is_too_big_for_the_server_is_not_called_unavailable(hybrid: Hybrid) -> None:
    # Broken on purpose: as DatabaseUnavailable, whoever waits for the server to come back tried a
    # message that it cannot store for ever.
    with pytest.raises(DatabaseError) as refused, hybrid.transaction() as tx:
        fetch(tx.connection, "SELECT repeat('x', 2000000000)", "public", {})
    assert not isinstance(refused.value, DatabaseUnavailable)


@ways
def test_a_connection_that_breaks_is_not_used_again(hybrid: Hybrid, run: Run) -> None:
    # Broken on purpose: without `invalidate` the lost connection counted as good.
    with pytest.raises(DatabaseUnavailable), postgres.transaction(hybrid.engine) as connection:
        ((pid,),) = fetch(connection, "SELECT pg_backend_pid()", "public", {})
        with hybrid.engine.begin() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        time.sleep(0.1)
        with pytest.raises(DBAPIError) as broken:
            run(connection, "SELECT 1", "public", {})
        assert broken.value.connection_invalidated
        assert connection.invalidated
        raise broken.value
    with postgres.transaction(hybrid.engine) as connection:
        assert fetch(connection, "SELECT 1", "public", {}) == [(1,)]


@ways
def test_a_wait_that_is_interrupted_ends_the_connection(hybrid: Hybrid, run: Run) -> None:
    # Broken on purpose: with pool_reset_on_return=None the pool took it back amid a statement.
    class Stop(BaseException):
        pass

    def interrupt(connection: Any, _: float) -> None:
        connection.watch = None
        raise Stop

    with pytest.raises(Stop), postgres.reads(hybrid.engine) as connection:
        driver: Any = connection.connection.driver_connection
        driver.watch = interrupt
        run(connection, "SELECT pg_sleep(0.5)", "public", {})
    assert driver.closed
    with postgres.reads(hybrid.engine) as connection:
        assert fetch(connection, "SELECT 2", "public", {}) == [(2,)]


@ways
def test_an_error_while_an_interruption_is_handled_stays_what_it_is(
    hybrid: Hybrid, run: Run
) -> None:
    # Broken on purpose: told by the error's context alone, this raised the interruption again.
    class Stop(BaseException):
        pass

    with postgres.reads(hybrid.engine) as connection:
        try:
            raise Stop  # noqa: TRY301
        except Stop:
            with pytest.raises(ProgrammingError):
                run(connection, "SELECT nobody_knows_this", "public", {})
        assert not connection.invalidated
        assert fetch(connection, "SELECT 1", "public", {}) == [(1,)]
