"""The services, shared by all tests of their health, and well again after each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from eight import Services
from servers.stack import NativeStack
from stand import until

from telegram_hybrid import connect


@pytest.fixture(scope="session")
def running() -> Iterator[Services]:
    if missing := NativeStack.missing():
        pytest.skip(missing)
    with NativeStack() as stack:
        stack.add("postgres/pg_hba.conf", "local replication all peer")
        stack.start()
        master, replica = stack.redis.nodes
        daemons = {
            "postgres": stack.postgres,
            "pgbouncer": stack.pgbouncer,
            "redis": master,
            "replica": replica,
            **{each.name: each for each in stack.redis.sentinels},
            "rabbitmq": stack.rabbitmq,
        }
        services = Services(stack, daemons)
        with connect(services.settings) as hybrid:
            hybrid.migrate()
        until(services.is_well, seconds=60)
        yield services


@pytest.fixture
def services(running: Services) -> Iterator[Services]:
    yield running
    running.restore()
