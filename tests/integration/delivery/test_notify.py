"""Wake-ups by LISTEN and NOTIFY, where there is no Redis: soon after a commit, and never in it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import attrs
import psycopg
import pytest
from servers.stack import NativeStack
from stand import Stand, until

from telegram_hybrid import Hybrid, connect
from telegram_hybrid.cache.wake import INTERVAL
from telegram_hybrid.connect.postgres import open_engine
from telegram_hybrid.delivery import relay as relay_module
from telegram_hybrid.delivery.notify import PostgresWake, notifier, topic_of
from telegram_hybrid.settings import Settings
from telegram_hybrid.testing import make_message

pytestmark = pytest.mark.integration


@pytest.fixture
def hybrid(redis_at: Stand) -> Iterator[Hybrid]:
    """One without Redis, but for the embedded broker."""
    with connect(attrs.evolve(redis_at.settings, redis_url=None)) as ready:
        yield ready


@pytest.fixture
def hardly_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "POLL_FIRST", 60.0)
    monkeypatch.setattr(relay_module, "POLL_MOST", 60.0)


def listening(at: Any, number: int = 1) -> bool:
    """Whether so many sessions wait for notifications of this schema."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE :listen"
    return bool(at.value(query, listen=f'LISTEN "{topic_of(at.schema)}"%') == number)


def works(at: Stand, hybrid: Hybrid, rounds: int = 3) -> float:
    """Save, and wait until the relay, which hardly polls, has published; seconds of the slowest."""
    slowest = 0.0
    for _ in range(rounds):
        until(lambda: at.outbox() == [])
        began = time.monotonic()
        hybrid.messages.save(make_message())
        until(lambda: at.outbox() == [], 10.0)
        slowest = max(slowest, time.monotonic() - began)
    return slowest


def test_a_commit_wakes_a_relay_and_so_does_the_next_after_its_connection_was_lost(
    redis_at: Stand, hybrid: Hybrid, hardly_polling: None
):
    # Broken on purpose: without the call after the commit.
    redis_at.consumer(lambda event, tx: None).declare()
    relay = hybrid.relay()
    relay.start()
    until(lambda: listening(redis_at))
    print(f"published {works(redis_at, hybrid) * 1000:.0f} ms after the commit, at the most")
    redis_at.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE :listen",
        listen=f'LISTEN "{topic_of(redis_at.schema)}"%',
    )
    until(lambda: listening(redis_at, 0))
    until(lambda: listening(redis_at))
    works(redis_at, hybrid)
    assert relay.stop()
    assert relay.counters.failures == 0
    until(lambda: listening(redis_at, 0))


def test_many_commits_make_few_notifications_and_the_last_is_never_swallowed(
    redis_at: Stand, hybrid: Hybrid
):
    # Broken on purpose: a NOTIFY for each call; one that leaves out calls within the interval.
    notified: list[float] = []
    stop = threading.Event()
    with psycopg.connect(redis_at.engine.url.render_as_string(False).replace("+psycopg", "")) as db:
        db.autocommit = True
        db.execute(f'LISTEN "{topic_of(redis_at.schema)}"')

        def listen() -> None:
            while not stop.is_set():
                notified.extend(time.monotonic() for _ in db.notifies(timeout=0.1))

        thread = threading.Thread(target=listen)
        thread.start()
        began = time.monotonic()
        for _ in range(200):
            hybrid._notify()
            time.sleep(0.001)
        last = time.monotonic()
        until(lambda: notified and notified[-1] >= last - 0.001)
        time.sleep(0.3)
        took = time.monotonic() - began
        with pytest.raises(ZeroDivisionError), hybrid.transaction() as tx:
            tx.messages.save(make_message())
            raise ZeroDivisionError
        time.sleep(0.2)
        assert notified[-1] <= began + took
        stop.set()
        thread.join()
    print(f"{len(notified)} notifications of 200 calls in {last - began:.2f} s")
    assert len(notified) <= (last - began) / INTERVAL + 2


def test_it_goes_on_in_a_forked_process_and_after_a_while_of_silence(
    redis_at: Stand, hybrid: Hybrid, hardly_polling: None
):
    redis_at.consumer(lambda event, tx: None).declare()
    relay = hybrid.relay()
    relay.start()
    until(lambda: listening(redis_at))
    works(redis_at, hybrid, 1)
    until(lambda: hybrid._notify._thread is None, 5.0)
    works(redis_at, hybrid, 1)
    if (child := os.fork()) == 0:
        try:
            hybrid.messages.save(make_message())
            hybrid._notify.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    until(lambda: redis_at.outbox() == [], 10.0)
    assert relay.stop()


def test_without_a_server_nobody_waits_and_nothing_is_raised():
    settings = Settings(database_url="postgresql://nobody@127.0.0.1:1/nothing")
    wake = PostgresWake(open_engine(settings, pooled=False, direct=True, deadline=0), "s")
    began = time.monotonic()
    assert wake.wait(0.05) is False
    assert time.monotonic() - began < 1.0
    wake.notify()
    assert wake.wait(5.0) is True
    wake.close()
    wakes = notifier(open_engine(settings, deadline=0), "s")
    wakes()
    wakes.close()


def test_writers_behind_pgbouncer_wake_a_relay_that_listens_past_it(
    stack: NativeStack, redis_at: Stand, hardly_polling: None
):
    # Broken on purpose: LISTEN through the pooler (no `direct`) was never answered.
    stack.start(stack.postgres, stack.pgbouncer)
    settings = attrs.evolve(
        stack.settings,
        redis_url=None,
        broker_url=redis_at.settings.broker_url,
        database_schema="notify_pooled",
        exchange=redis_at.settings.exchange,
    )
    with connect(settings) as hybrid:
        hybrid.migrate()
        at = Stand(settings, hybrid.engine)
        at.consumer(lambda event, tx: None).declare()
        relay = hybrid.relay()
        relay.start()
        until(lambda: listening(at))
        works(at, hybrid)
        assert relay.stop()
        hybrid.destroy()
