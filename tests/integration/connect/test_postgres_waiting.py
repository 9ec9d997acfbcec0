"""Waiting for the database: for a pooler that is busy, and not for a process that is stopped."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import attrs
import psycopg
import pytest
from servers.stack import NativeStack
from sqlalchemy import text

from telegram_hybrid.connect import postgres
from telegram_hybrid.connect.postgres.routes import Route
from telegram_hybrid.errors import DatabaseUnavailable
from telegram_hybrid.schema.postgres.sql import fetch
from telegram_hybrid.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("postgres-waiting")]


@pytest.fixture(scope="module")
def stack() -> Iterator[NativeStack]:
    """With one server connection in the pool, and places for ten clients."""
    if missing := NativeStack.missing():
        pytest.skip(missing)
    with NativeStack() as servers:
        servers.add("pgbouncer/pgbouncer.ini", "default_pool_size = 1", "reserve_pool_size = 0")
        servers.add("pgbouncer/pgbouncer.ini", "max_client_conn = 10")
        servers.start(servers.postgres, servers.pgbouncer)
        yield servers


def test_a_pooler_that_is_busy_with_others_is_waited_for(stack: NativeStack) -> None:
    """One server connection, held for five seconds by somebody who uses it all the time.

    Seen to fail without _is_busy in Router._by_any_way: the second client fled past the pooler.
    """
    settings = attrs.evolve(stack.settings, redis_url=None, connect_timeout=20.0)
    engine = postgres.open_engine(settings)
    held = threading.Event()

    def hold() -> None:
        with postgres.transaction(engine) as connection:
            until = time.monotonic() + 5.0
            while time.monotonic() < until:
                connection.execute(text("SELECT 1"))
                held.set()
                time.sleep(0.1)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10.0)
    with postgres.transaction(engine) as connection:
        connection.execute(text("SELECT 1"))
    route = postgres.route(engine)
    holder.join()
    postgres.shut(engine)
    assert route == (Route.POOLER, None)


def test_a_connection_cancels_each_statement_that_takes_too_long(stack: NativeStack) -> None:
    # Seen to fail when it remembered the first one: the second ended with "no answer within".
    stack.start(stack.postgres)
    settings = Settings(
        database_url=stack.settings.database_url, statement_timeout=0.5, pool_size=1
    )
    engine = postgres.open_engine(settings)
    for _ in range(3):
        with (
            pytest.raises(DatabaseUnavailable, match="canceling statement"),
            postgres.transaction(engine) as connection,
        ):
            connection.execute(text("SELECT pg_sleep(30)"))
    postgres.shut(engine)


def test_a_server_process_that_cannot_even_be_cancelled_is_given_up(stack: NativeStack) -> None:
    # Seen to fail with only the cancellation: the wait ended when the process went on.
    settings = Settings(database_url=stack.settings.database_url, statement_timeout=1.0)
    engine = postgres.open_engine(settings, pooled=False)
    with (
        pytest.raises(DatabaseUnavailable, match="no answer within 1 seconds"),
        postgres.transaction(engine) as connection,
    ):
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        os.kill(pid, signal.SIGSTOP)
        resume = threading.Timer(8.0, os.kill, (pid, signal.SIGCONT))
        resume.start()
        began = time.monotonic()
        connection.execute(text("SELECT 1"))
    took = time.monotonic() - began
    resume.cancel()
    os.kill(pid, signal.SIGCONT)
    assert took < 6.0


def test_a_pooler_that_refuses_logins_is_alive_to_whom_it_serves(stack: NativeStack) -> None:
    """All of its places are taken, so whoever asks whether it lives is refused.

    Seen to fail while that was taken for silence: a slow statement was given up in its midst.
    """
    stack.start(stack.postgres, stack.pgbouncer)
    settings = attrs.evolve(stack.settings, redis_url=None)
    engine = postgres.open_engine(settings)
    with postgres.transaction(engine) as connection, ExitStack() as others:
        connection.execute(text("SELECT 1"))
        with pytest.raises(psycopg.OperationalError, match="no more connections"):
            for _ in range(10):
                others.enter_context(psycopg.connect(settings.pooler_url or ""))
        connection.execute(text("SELECT pg_sleep(3)"))
    route = postgres.route(engine)
    postgres.shut(engine)
    assert route == (Route.POOLER, None)


def test_a_server_that_is_lost_without_a_word_costs_a_thread_one_call(stack: NativeStack) -> None:
    """As a host without power: nothing tells that the connections that idle are dead, too.

    Seen to fail while only the one that was used left its pool: each of the others cost a call,
    and that the whole timeout.
    """
    stack.start(stack.postgres)
    settings = Settings(
        database_url=stack.settings.database_url, statement_timeout=1.0, pool_size=3
    )
    engine = postgres.open_engine(settings)
    with ExitStack() as used:
        connections = [used.enter_context(postgres.reads(engine)) for _ in range(3)]
        pids = [each.execute(text("SELECT pg_backend_pid()")).scalar_one() for each in connections]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(DatabaseUnavailable, match="no answer"), postgres.reads(engine) as used:
            fetch(used, "SELECT 1", "public", {})
        with postgres.reads(engine) as used:
            assert fetch(used, "SELECT 1", "public", {}) == [(1,)]
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        postgres.shut(engine)
