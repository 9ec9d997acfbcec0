"""The pooler in a process that does little: it is found again without traffic, left when mute."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest
from servers.stack import NativeStack
from sqlalchemy import make_url, text
from stand import until

from telegram_hybrid import connect
from telegram_hybrid.connect import postgres
from telegram_hybrid.connect.postgres.routes import Route
from telegram_hybrid.errors import DatabaseUnavailable
from telegram_hybrid.settings import Settings

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


def test_a_pooler_that_returns_serves_within_5_seconds_without_a_single_call(
    pooled: NativeStack, settings: Settings
) -> None:
    """Seen to fail while the next checkout was what looked for it: it stayed past the pooler."""
    with connect(settings) as hybrid:
        hybrid.migrate()
        assert hybrid.messages.latest(-1, limit=1) == []
        pooled.pgbouncer.kill()
        assert hybrid.messages.latest(-1, limit=1) == []
        assert postgres.route(hybrid.engine)[0] is Route.DIRECT
        pooled.pgbouncer.start()
        began = time.monotonic()
        until(lambda: postgres.route(hybrid.engine)[0] is Route.POOLER, 5.0)
        print(f"\nback after {time.monotonic() - began:.2f} s without traffic")


def test_nobody_looks_for_the_pooler_of_a_closed_or_forgotten_engine(
    pooled: NativeStack, settings: Settings
) -> None:
    # Seen to fail without _rest: the thread of a disposed engine went on.
    settings = attrs.evolve(settings, pooler_url="postgresql://127.0.0.1:1/x")
    with connect(settings) as hybrid:
        hybrid.migrate()
        engine = postgres.open_engine(settings, pooled=False)
        with postgres.transaction(engine) as connection:
            connection.execute(text("SELECT 1"))
        hybrid.messages.latest(-1, limit=1)
        assert searches() == 2
        engine.dispose()
        until(lambda: searches() == 1, 5.0)
    until(lambda: searches() == 0, 5.0)


def searches() -> int:
    return sum(each.name == "telegram_hybrid.pooler" for each in threading.enumerate())


def test_a_statement_in_a_mute_pooler_is_given_up_within_5_seconds(
    pooled: NativeStack, settings: Settings
) -> None:
    """One second of doubt, three for a login that nobody answers.

    Seen to fail with three seconds of doubt.
    """
    engine = postgres.open_engine(settings)
    with pytest.raises(DatabaseUnavailable), postgres.transaction(engine) as connection:
        connection.execute(text("SELECT 1"))
        pooled.pgbouncer.pause()
        began = time.monotonic()
        connection.execute(text("SELECT 1"))
    took = time.monotonic() - began
    pooled.pgbouncer.resume()
    engine.dispose()
    print(f"\nmute: given up after {took:.2f} s")
    assert took < 5.0


def test_a_statement_in_a_mute_pooler_is_given_up_also_if_others_have_left_it_before(
    pooled: NativeStack, settings: Settings
) -> None:
    """Who wanted a new connection gave the pooler up; who still waits for its answer must, too.

    Seen to fail while nobody doubted a pooler that did not serve any more: it waited for all of
    the statement's time.
    """
    engine = postgres.open_engine(attrs.evolve(settings, statement_timeout=15.0))
    with pytest.raises(DatabaseUnavailable), postgres.transaction(engine) as connection:
        connection.execute(text("SELECT 1"))
        pooled.pgbouncer.pause()
        with postgres.reads(engine) as other:
            other.execute(text("SELECT 1"))
        assert postgres.route(engine)[0] is Route.DIRECT
        began = time.monotonic()
        connection.execute(text("SELECT 1"))
    took = time.monotonic() - began
    pooled.pgbouncer.resume()
    engine.dispose()
    assert took < 10.0


def test_a_slow_statement_through_a_living_pooler_is_waited_for(
    pooled: NativeStack, settings: Settings
) -> None:
    # Seen to fail with every doubt taken for silence.
    engine = postgres.open_engine(settings)
    with postgres.transaction(engine) as connection:
        connection.execute(text("SELECT pg_sleep(6)"))
    assert postgres.route(engine) == (Route.POOLER, None)
    engine.dispose()


def test_a_pooler_that_alone_may_log_in_is_waited_for_as_a_server_is(
    pooled: NativeStack, settings: Settings
) -> None:
    """As where pg_hba.conf lets nobody else in.

    Seen to fail while what the direct way refuses counted as final: half a second without the
    pooler was an error at once, and one that is not to be tried again.
    """
    direct = make_url(settings.database_url).set(password="wrong")
    settings = attrs.evolve(settings, database_url=direct.render_as_string(hide_password=False))
    engine = postgres.open_engine(settings)

    def ask() -> None:
        with postgres.transaction(engine) as connection:
            connection.execute(text("SELECT 1"))

    ask()
    pooled.pgbouncer.kill()
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(ask)
        time.sleep(0.5)
        pooled.pgbouncer.start()
        asked.result(20.0)
    pooled.pgbouncer.kill()
    hasty = postgres.open_engine(settings, deadline=0.1)
    with pytest.raises(DatabaseUnavailable, match="authentication failed"):
        postgres.connected(hasty)
    engine.dispose()
    hasty.dispose()
