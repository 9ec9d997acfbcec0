"""A mute service, or all of them, takes a check no longer than its bound."""

from __future__ import annotations

import os
import signal
import time
from threading import Thread

import attrs
import pytest
from eight import Services

from telegram_hybrid import connect
from telegram_hybrid.health import SECONDS, State, check

# One worker of xdist: its servers serve every test here.
pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("health")]


#: Seconds that a check may take on top of its bound, for threads to be scheduled.
SLACK = 1.0


MUTE = {
    "postgres": ("postgresql", State.DOWN),
    "pgbouncer": ("pgbouncer", State.DEGRADED),
    "redis": ("redis", State.DEGRADED),
    "rabbitmq": ("broker", State.DOWN),
}


@pytest.mark.parametrize("name", MUTE)
def test_a_mute_service_takes_no_longer_than_the_bound(services: Services, name: str) -> None:
    service, state = MUTE[name]
    with connect(services.settings) as hybrid:
        hybrid.messages.latest(-1001)
        services.pause(name)
        began = time.monotonic()
        found = hybrid.health()
        took = time.monotonic() - began
        services.restore()
    print(f"\nmute {name}: {took:.2f} s; {found[service]}")
    assert took < SECONDS + SLACK
    assert found[service].state is state
    assert found[service].why
    if name != "postgres":
        assert found["postgresql"].state is State.OK
        assert found.outbox is not None
    if name != "rabbitmq":
        assert found["broker"].state is State.OK


def test_a_server_that_takes_no_new_connections_is_degraded(services: Services) -> None:
    """PostgreSQL's first process is mute, those that the pooler has connected to serve on."""
    os.kill(services.daemons["postgres"].pid, signal.SIGSTOP)
    found = check(services.settings)["postgresql"]
    assert (found.state, found.via) == (State.DEGRADED, "pooler")
    assert "PgBouncer alone reaches it" in found.why


def test_the_bound_holds_when_everything_is_mute(services: Services) -> None:
    """Seen to fail without the bound on `wait`: 4 s."""
    services.pause(*services.daemons)
    began = time.monotonic()
    found = check(services.settings, seconds=2.0)
    took = time.monotonic() - began
    print(f"\neverything mute: {took:.2f} s")
    assert took < 2.0 + SLACK
    assert not any(each.reachable for each in found.services)
    assert found.state is State.DOWN


def test_where_no_thread_can_be_started_health_is_told_all_the_same(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail: RuntimeError, just when somebody wants to know what is wrong.
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", refuse)
    settings = attrs.evolve(services.settings, redis_url=None)
    assert check(settings)["postgresql"].state is State.OK
