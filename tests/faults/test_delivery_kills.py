"""Delivery under kill -9: nothing lost, nothing applied twice, each channel in order (P3, P4)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import pytest
from servers.rabbitmq import RabbitMQ
from stand import Stand, stand, until

from telegram_hybrid.embedded import Servers
from telegram_hybrid.settings import Settings

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

PROGRAM = Path(__file__).with_name("killed_delivery.py")
CHANNELS = tuple(range(-1008, -1000))
SEED = 20241121


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Servers of this test's own, to kill; they are started again by their keeper."""
    with Servers() as running:
        yield running


@pytest.fixture
def at(servers: Servers) -> Iterator[Stand]:
    settings = Settings(
        database_url=servers.database_url,
        redis_url=servers.redis_url,
        broker_url=servers.broker_url,
        exchange="faults.messages",
    )
    with stand(settings) as ready:
        yield ready


def on_rabbitmq(at: Stand, rabbitmq: RabbitMQ) -> Stand:
    """The same stand on the deployment's RabbitMQ, whose user may make only what is telegram's.

    That runs through all tests, so each has an exchange and a queue of its own: a killed relay
    leaves repetitions in the queue, which would be new to the next test's inbox. Seen to fail with
    one name for all, under load: 17 events of the test before were applied, once more 42.
    """
    exchange = f"telegram.faults.{uuid4().hex}"
    settings = attrs.evolve(at.settings, broker_url=rabbitmq.url, exchange=exchange)
    return attrs.evolve(at, settings=settings)


def prepare(at: Stand, *, single_active: bool = False) -> None:
    at.execute("CREATE TABLE {s}.effects (n bigserial, sequence bigint, channel_id bigint)")
    at.consumer(lambda event, tx: None, single_active=single_active).declare()


def killed(at: Stand, **options: Any) -> subprocess.Popen[bytes]:
    defaults: dict[str, Any] = {
        "database": at.settings.database_url,
        "schema": at.schema,
        "exchange": at.topology.exchange,
        "broker": at.settings.broker_url,
        "queue": at.queue,
        "roles": ["relay", "consume"],
        "seed": SEED,
        "batch": 1,
        "plain": False,
        "single_active": False,
        "patience": 120.0,
    }
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), json.dumps(defaults | options)], env=environment
    )


def told(rabbitmq: RabbitMQ) -> str:
    """What RabbitMQ says about its queues, for a failure that nobody saw."""
    columns = ("name", "messages_ready", "messages_unacknowledged", "consumers", "state")
    queues = rabbitmq.control("list_queues", "-p", "telegram", *columns)
    consumers = rabbitmq.control("list_consumers", "-p", "telegram")
    return f"{queues}\n{consumers}\n{rabbitmq.log.read_text(errors='replace')[-20_000:]}"


def check(at: Stand, expected: list[int]) -> None:
    """Every event took effect exactly once, in order per channel, and nothing is left over."""
    rows = at.rows("SELECT sequence, channel_id FROM {s}.effects ORDER BY n")
    applied = [row.sequence for row in rows]
    assert sorted(set(expected) - set(applied)) == [], "lost"
    assert sorted(applied) == expected, "applied twice"
    for channel in CHANNELS:
        order = [row.sequence for row in rows if row.channel_id == channel]
        assert order == sorted(order), f"channel {channel} out of order"
    assert at.outbox() == []
    assert at.value("SELECT count(*) FROM {s}.dead_letters") == 0


def test_a_consumer_on_the_embedded_broker_that_is_killed_60_times_loses_nothing(at: Stand):
    """2,000 events flow while it dies.

    Seen to fail with kombu's own Redis transport (plain=True in the call below), although that
    got a visibility timeout of one second instead of its hour: of 4,000 events 5 were gone for
    good, in no list, no hash and no inbox, and 1,558 were still held back 25 seconds after the
    last kill.
    """
    prepare(at)
    at.feed(2000, CHANNELS)
    expected = at.outbox()
    relay = at.relay()
    program = killed(at, roles=["consume"], kills=60, events=len(expected))
    relay.start()
    assert program.wait(300) == 0
    assert relay.stop()
    check(at, expected)


@pytest.mark.parametrize(("batch", "events"), [(1, 1500), (20, 3000)])
def test_a_relay_and_a_consumer_that_are_killed_together_lose_nothing(
    at: Stand, batch: int, events: int
):
    prepare(at)
    at.feed(events, CHANNELS)
    expected = at.outbox()
    assert killed(at, kills=30, events=len(expected), batch=batch).wait(300) == 0
    check(at, expected)


def test_killing_the_embedded_broker_and_the_database_loses_nothing(at: Stand, servers: Servers):
    prepare(at)
    at.feed(2000, CHANNELS)
    expected = at.outbox()
    program = killed(at, kills=0, events=len(expected))
    for name in ("broker", "postgres", "broker", "broker", "postgres", "broker"):
        time.sleep(1.0)
        pid = servers.pids[name]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        servers.check()
    assert program.wait(300) == 0
    check(at, expected)


def test_on_rabbitmq_a_relay_and_a_consumer_that_are_killed_lose_nothing(at: Stand, rabbitmq):
    at = on_rabbitmq(at, rabbitmq)
    prepare(at, single_active=True)
    at.feed(1500, CHANNELS)
    expected = at.outbox()
    assert killed(at, kills=20, single_active=True, events=len(expected)).wait(300) == 0
    check(at, expected)


def test_killing_rabbitmq_loses_nothing(at: Stand, rabbitmq: RabbitMQ):
    """Seen to fail in 2 of 20 runs without `single_active`: the new connection got later events of
    a channel while the queue still held earlier ones for the one that was gone."""
    at = on_rabbitmq(at, rabbitmq)
    prepare(at, single_active=True)
    # A quorum queue that is killed within about 3 s of its declaration comes back empty.
    time.sleep(4.0)
    at.feed(2000, CHANNELS)
    expected = at.outbox()
    program = killed(at, kills=0, single_active=True, events=len(expected))
    until(lambda: at.value("SELECT count(*) FROM {s}.effects") > 300, 60.0)
    rabbitmq.kill()
    rabbitmq.start()
    assert program.wait(300) == 0, told(rabbitmq)
    check(at, expected)
