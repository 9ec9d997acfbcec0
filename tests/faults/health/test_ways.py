"""What a running Hybrid tells of the ways that it has taken, and of a standby."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from eight import Services
from servers.ports import free_ports
from servers.postgres import Postgres
from servers.stack import NativeStack
from stand import until

from telegram_hybrid import Settings, connect
from telegram_hybrid.connect.postgres import Route, _router
from telegram_hybrid.connect.redis import directory_of
from telegram_hybrid.errors import Closed, DatabaseUnavailable
from telegram_hybrid.health import State, check

# One worker of xdist: its servers serve every test here.
pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("health")]


def test_the_way_of_a_running_hybrid_is_told(services: Services) -> None:
    with connect(services.settings) as hybrid:
        hybrid.messages.get(-1001, 1)
        assert hybrid.health()["postgresql"].via == "pooler"
        services.kill("pgbouncer")
        with contextlib.suppress(DatabaseUnavailable):
            hybrid.messages.revisions(-1001, 1)
        until(lambda: hybrid.health()["postgresql"].via == "direct")
        services.restore()
        until(lambda: hybrid.health()["postgresql"].via == "pooler", seconds=5)


def test_a_hybrid_that_has_not_found_its_pooler_again_says_so(services: Services) -> None:
    """Seen to fail without the engine's own route: new connections find the pooler at once."""
    with connect(services.settings) as hybrid:
        _router(hybrid.engine).routes.failed(Route.POOLER, "it was gone")
        found = hybrid.health()
    assert (found["postgresql"].via, found["postgresql"].state) == ("direct", State.OK)
    assert (found["pgbouncer"].reachable, found["pgbouncer"].state) == (True, State.DEGRADED)
    assert "still goes past it" in found["pgbouncer"].why
    assert "it was gone" in found["pgbouncer"].why


def test_redis_without_sentinel_in_a_running_hybrid_is_told(services: Services) -> None:
    with connect(services.settings) as hybrid:
        hybrid.messages.get(-1001, 1)
        assert hybrid.health()["redis"].via == "sentinel"
        services.kill("sentinel-1", "sentinel-2", "sentinel-3")
        directory = directory_of(hybrid._redis)
        until(lambda: directory.view().via == "direct")
        found = hybrid.health()["redis"]
        assert (found.via, found.state) == ("direct", State.DEGRADED)
        assert "no sentinel answers" in found.why


def test_a_hybrid_that_has_not_found_its_sentinels_again_says_so(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail without the client's own view: new connections find the sentinels at once."""
    with connect(services.settings) as hybrid:
        hybrid.messages.get(-1001, 1)
        directory = directory_of(hybrid._redis)
        stale = attrs.evolve(directory.view(), via="direct", degraded="they were gone")
        monkeypatch.setattr(directory, "view", lambda: stale)
        found = hybrid.health()["redis"]
    assert (found.via, found.state) == ("direct", State.DEGRADED)
    assert "they were gone" in found.why


def test_a_closed_hybrid_has_no_health(services: Services) -> None:
    hybrid = connect(services.settings)
    hybrid.close()
    with pytest.raises(Closed):
        hybrid.health()


def test_a_standby_and_its_lag_are_seen_from_both_ends(services: Services) -> None:
    stack = services.stack
    with standby(stack) as port:
        (node,) = until_followed(services).nodes
        assert node.reachable
        assert "pg_read_all_stats" in node.why
        assert node.lag_bytes is None
        stack.postgres.psql("-c", "GRANT pg_read_all_stats TO telegram")
        try:
            until(lambda: until_followed(services).nodes[0].lag_bytes == 0)
            (node,) = until_followed(services).nodes
            assert (node.address, node.why) == ("walreceiver", "")
            assert node.lag_seconds is not None
        finally:
            stack.postgres.psql("-c", "REVOKE pg_read_all_stats FROM telegram")
        own = str(stack.ports["postgres"])
        there = services.settings.database_url.replace(f":{own}/", f":{port}/")
        found = check(Settings.from_url(there))["postgresql"]
        assert (found.role, found.state) == ("replica", State.DOWN)
        assert found.lag_seconds == 0.0
        assert "takes no writes" in found.why


def until_followed(services: Services) -> Any:
    until(lambda: bool(check(services.settings)["postgresql"].nodes))
    return check(services.settings)["postgresql"]


@contextlib.contextmanager
def standby(stack: NativeStack) -> Iterator[int]:
    """A streaming replica of the deployment's PostgreSQL; its port."""
    (port,) = free_ports(1)
    data = stack.folder / "data/standby"
    stack.postgres.run(
        *("pg_basebackup", "-D", str(data), "-h", f"{stack.folder}/run", "-R", "-X", "stream"),
        *("-p", str(stack.postgres.port), "-c", "fast", "-N"),
    )
    daemon = Postgres(stack.folder, port, stack.postgres.user, name="standby")
    daemon.start()
    try:
        yield port
    finally:
        daemon.stop()
