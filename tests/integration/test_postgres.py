"""The engine: a server that restarted is met again without an error (P8, for the database)."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, ResourceClosedError
from stand import until

from telegram_hybrid import Hybrid, Outcome, connect
from telegram_hybrid.connect.postgres import reads
from telegram_hybrid.errors import DatabaseError, DatabaseUnavailable
from telegram_hybrid.schema.postgres.sql import fetch, sql
from telegram_hybrid.testing import make_message
from telegram_hybrid.testing.factories import CHANNEL_ID

pytestmark = pytest.mark.integration


def test_connections_that_the_server_closed_while_idle_are_replaced(hybrid: Hybrid) -> None:
    # Broken on purpose: without the listener the first save raises DatabaseUnavailable.
    hybrid.messages.save(make_message())
    others = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with hybrid.engine.connect() as first:
        with hybrid.engine.connect() as second:
            second.execute(text("SELECT 1"))
        first.execute(others)
    time.sleep(0.1)
    for _ in range(3):
        assert hybrid.messages.save(make_message()).outcome is Outcome.INSERTED


def test_a_connection_that_breaks_inside_a_transaction_is_a_typed_retryable_error(
    hybrid: Hybrid,
) -> None:
    with pytest.raises(DatabaseUnavailable) as broken, hybrid.transaction() as tx:
        tx.messages.save(message := make_message())
        pid = tx.connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with hybrid.engine.begin() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        time.sleep(0.1)
        tx.messages.save(make_message())
    assert broken.value.retryable
    assert hybrid.messages.get(*message.key) is None


@pytest.mark.parametrize("again", [True, False])
def test_a_transaction_that_failed_is_not_taken_for_committed(hybrid: Hybrid, again: bool) -> None:
    # Broken on purpose: without the look whether it has failed, the block ended in silence, and
    # the message was in the cache alone: PostgreSQL answers a COMMIT with ROLLBACK then. Without a
    # translation, whoever went on was told that "commands are ignored", and not what to do.
    hybrid.messages.latest(CHANNEL_ID)
    with (
        pytest.raises(DatabaseError, match="behind a savepoint") as told,
        hybrid.transaction() as tx,
    ):
        tx.messages.save(message := make_message())
        with suppress(DBAPIError):
            tx.connection.execute(text("SELECT 1 / 0"))
        if again:
            tx.messages.save(make_message())
    assert not told.value.retryable
    assert hybrid.messages.get(*message.key) is None
    assert hybrid.messages.latest(CHANNEL_ID) == []
    assert hybrid.messages.save(message).outcome is Outcome.INSERTED


@pytest.mark.parametrize("again", [True, False])
def test_a_connection_that_was_lost_in_silence_is_told_at_the_end(
    hybrid: Hybrid, again: bool
) -> None:
    # Broken on purpose: without a translation it was SQLAlchemy's PendingRollbackError, which a
    # consumer took for the handler's own failure.
    with pytest.raises(DatabaseUnavailable), hybrid.transaction() as tx:
        tx.messages.save(message := make_message())
        pid = tx.connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with hybrid.engine.begin() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        time.sleep(0.1)
        with suppress(DBAPIError):
            tx.connection.execute(text("SELECT 1"))
        if again:
            tx.messages.save(make_message())
    assert hybrid.messages.get(*message.key) is None


def test_what_went_wrong_first_is_raised_also_when_the_connection_is_gone(hybrid: Hybrid) -> None:
    with pytest.raises(LookupError, match="mine"), hybrid.transaction() as tx:
        pid = tx.connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with hybrid.engine.begin() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        time.sleep(0.1)
        raise LookupError("mine")
    hybrid.messages.save(make_message())


def test_a_server_that_ends_every_connection_at_once_is_unavailable(hybrid: Hybrid) -> None:
    # Seen to fail, with SQLAlchemy's own InvalidRequestError, in the 2,000 faults of a campaign:
    # the pool replaces a connection that has ended once, and then gives up.
    def ended(*_: object) -> None:
        raise DisconnectionError("the server has closed it")

    event.listen(hybrid.engine, "checkout", ended)
    for use in (hybrid.transaction, lambda: reads(hybrid.engine)):
        with pytest.raises(DatabaseUnavailable, match="ends connections"), use():
            pass
    event.remove(hybrid.engine, "checkout", ended)
    hybrid.messages.save(make_message())


@pytest.mark.parametrize("fails", [False, True])
def test_who_takes_the_connection_of_a_read_is_in_a_transaction_again(
    hybrid: Hybrid, fails: bool
) -> None:
    # Broken on purpose: without `autocommit = False` in `release` the rollback took nothing back.
    number = text("SELECT pg_current_xact_id()")
    with suppress(DatabaseError), reads(hybrid.engine) as connection:
        driver = connection.connection.dbapi_connection
        assert connection.execute(number).scalar() != connection.execute(number).scalar()
        if fails:
            connection.execute(text("SELECT 1 / 0"))
    with hybrid.engine.connect() as connection:
        assert connection.connection.dbapi_connection is driver
        assert connection.execute(number).scalar() == connection.execute(number).scalar()


def test_a_read_that_leaves_a_transaction_open_does_not_hand_it_on(hybrid: Hybrid) -> None:
    # Broken on purpose: without `invalidate` in `release` the driver's error came through.
    with reads(hybrid.engine) as connection:
        driver = connection.connection.dbapi_connection
        fetch(connection, "BEGIN", "public", {})
    with reads(hybrid.engine) as connection:
        assert connection.connection.dbapi_connection is not driver


@pytest.mark.filterwarnings("ignore:transaction already deassociated")
def test_who_closes_the_connection_of_a_transaction_hears_of_that_alone(hybrid: Hybrid) -> None:
    # Seen to fail, with "x not in list", where another transaction was begun behind it.
    with pytest.raises(ResourceClosedError), hybrid.transaction() as tx:
        tx.messages.save(message := make_message())
        tx.connection.close()
        hybrid.messages.save(make_message())
    assert hybrid.messages.get(*message.key) is None


def test_a_transaction_is_read_committed_whatever_the_database_prefers(hybrid: Hybrid) -> None:
    # Seen to fail, with "could not serialize access", while the database's default was taken: what
    # is read behind a channel's lock was as old as the wait for it.
    strict = make_url(hybrid.settings.database_url).update_query_dict(
        {"options": "-c default_transaction_isolation=serializable"}
    )
    url = strict.render_as_string(hide_password=False)
    held = sql(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        hybrid.settings.database_schema,
    )
    with (
        connect(attrs.evolve(hybrid.settings, database_url=url)) as other,
        ThreadPoolExecutor(1) as thread,
    ):

        def save() -> Outcome:
            with other.transaction() as tx:
                return tx.messages.save(make_message(message_id=2)).outcome

        other.messages.save(make_message(message_id=0))
        with other.transaction() as tx:
            tx.messages.save(make_message(message_id=1))
            saved = thread.submit(save)
            until(lambda: tx.connection.execute(held).scalar_one())
        assert saved.result(20.0) is Outcome.INSERTED


def test_a_save_waits_for_a_partition_no_longer_than_for_any_answer(hybrid: Hybrid) -> None:
    # Seen to fail, with a wait for as long as the table was locked, while partitions were made by
    # the engine of migrations, which have no limit.
    lock = sql('LOCK TABLE "{schema}".messages', hybrid.settings.database_schema)
    hasty = connect(attrs.evolve(hybrid.settings, statement_timeout=0.5))
    early = make_message(sent_at=datetime(1990, 1, 1, tzinfo=UTC))
    with hasty, ThreadPoolExecutor(1) as thread, hybrid.transaction() as tx:
        tx.connection.execute(lock)
        with pytest.raises(DatabaseUnavailable, match="statement_timeout"):
            thread.submit(hasty.messages.save, early).result(20.0)


def test_only_what_the_server_says_counts_as_an_answer(hybrid: Hybrid) -> None:
    # Seen to fail when a rollback with nothing to roll back, which asks nobody, counted as well:
    # a pooler that was silent seemed to live.
    answers: list[str] = []
    with reads(hybrid.engine) as connection:
        driver: Any = connection.connection.dbapi_connection
        driver.answered = lambda: answers.append("heard")
        driver.rollback()
        assert answers == []
        fetch(connection, "SELECT 1", "public", {})
        assert answers == ["heard"]
        driver.answered = None
