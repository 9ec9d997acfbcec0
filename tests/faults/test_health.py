"""Health beside the deployment's eight daemons: each is killed, or made mute, and what the command
line says and returns is compared with what that means."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import attrs
import pytest
from servers.daemon import Daemon, descendants
from servers.ports import free_ports
from servers.postgres import Postgres
from servers.stack import NativeStack, read_env
from stand import until

from telegram_hybrid import Settings, connect
from telegram_hybrid.connect.postgres import Route, _router
from telegram_hybrid.connect.redis import directory_of
from telegram_hybrid.errors import Closed, DatabaseUnavailable
from telegram_hybrid.health import SECONDS, Health, State, check
from telegram_hybrid.model import Status
from telegram_hybrid.testing import make_message

# One worker of xdist: its servers serve every test here.
pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("health")]

#: Seconds that a check may take on top of its bound, for threads to be scheduled.
SLACK = 1.0


@attrs.frozen
class Services:
    """The running daemons, to be killed and made mute; `restore` brings all of them back."""

    stack: NativeStack
    daemons: dict[str, Daemon]

    @property
    def settings(self) -> Settings:
        return self.stack.settings

    def kill(self, *names: str) -> None:
        for name in names:
            self.daemons[name].kill()

    def pause(self, *names: str) -> None:
        for name in names:
            self._signal(name, signal.SIGSTOP)

    def restore(self) -> None:
        for name in self.daemons:
            self._signal(name, signal.SIGCONT)
        self.stack.start()
        until(self.is_well, seconds=60)

    def _signal(self, name: str, number: signal.Signals) -> None:
        """To a daemon and its children: PostgreSQL's go on without the one that made them."""
        pid = self.daemons[name].pid
        for each in {pid, *descendants(pid)} if pid is not None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)

    def is_well(self) -> bool:
        return check(self.settings).state is State.OK

    def command(
        self, *options: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`python -m telegram_hybrid health`, as somebody calls it who loaded the .env."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TELEGRAM_")}
        return subprocess.run(
            [sys.executable, "-m", "telegram_hybrid", "health", *options],
            env={**kept, **(env or self.stack.env), "COLUMNS": "100"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def secrets(self) -> set[str]:
        """Every password of the deployment, as it is and as URLs have it."""
        found = read_env(self.stack.folder / "secrets.env").values()
        return {*found, *(quote(each, safe="") for each in found)}


@pytest.fixture(scope="module")
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


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def by_name(answer: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each for each in answer["services"]}


def test_all_services_well(services: Services) -> None:
    with connect(services.settings) as hybrid:
        hybrid.messages.save_many([make_message(message_id=n) for n in (1, 2, 3)])
        consumer = hybrid.consume(lambda event, tx: None, queue="telegram.news")
        consumer.declare()
        relay = hybrid.relay(owner="health")
        relay.step()
        hybrid.messages.mark(make_message().channel_id, 1, Status.QUEUED)
        mine = hybrid.health()
    (depth,) = [each for each in mine["broker"].queues if each.name == "telegram.news"]
    assert (depth.ready, depth.consumers) == (3, 0)

    done = services.command("--json", "--strict")
    answer, found = told(done), by_name(told(done))
    assert done.returncode == 0, done.stdout
    assert answer["state"] == "ok"
    assert {each["state"] for each in found.values()} == {"ok"}
    assert all(each["reachable"] and 0 < each["seconds"] < SECONDS for each in found.values())
    assert (found["postgresql"]["role"], found["postgresql"]["via"]) == ("primary", "pooler")
    assert (found["redis"]["role"], found["redis"]["via"]) == ("master", "sentinel")
    (replica,) = found["redis"]["nodes"]
    ports = {services.stack.ports[each] for each in ("redis", "replica")}
    assert {found["redis"]["address"], replica["address"]} == {f"127.0.0.1:{n}" for n in ports}
    assert replica["lag_seconds"] <= 10
    assert replica["lag_bytes"] >= 0
    assert [each["reachable"] for each in found["sentinel"]["nodes"]] == [True, True, True]
    # Another process knows no queue whose consumer never handled an event.
    assert [each["name"] for each in found["broker"]["queues"]] == ["telegram.messages.dlq"]
    assert answer["outbox"]["events"] == 1
    assert answer["outbox"]["oldest_seconds"] >= 0
    assert answer["outbox"]["dead_letters"] == 0
    assert found["broker"]["version"].startswith("RabbitMQ 3.")

    table = services.command("--strict")
    assert table.returncode == 0
    for word in ("postgresql", "pgbouncer", "via sentinel", "queue telegram.messages.dlq"):
        assert word in table.stdout


def test_a_queue_with_a_past_is_known_to_every_process(services: Services) -> None:
    # Seen to fail without the inbox's queues.
    handled: list[Any] = []
    with connect(services.settings) as hybrid:
        hybrid.messages.save(make_message(message_id=99))
        consumer = hybrid.consume(lambda event, tx: handled.append(event), queue="telegram.past")
        consumer.declare()
        hybrid.relay(owner="health").step()
        consumer.start()
        until(lambda: bool(handled))
        with_one = check(services.settings)["broker"].queues
        assert ("telegram.past", 1) in [(each.name, each.consumers) for each in with_one]
        consumer.stop()
        until(
            lambda: (
                ("telegram.past", 0)
                in [
                    (each.name, each.consumers)
                    for each in check(services.settings)["broker"].queues
                ]
            )
        )


# What is lost: whose state it is, and patterns of the reason.
DEGRADED = {
    "pooler": (["pgbouncer"], "pgbouncer", "connections go past it", "refused"),
    "replica": (["replica"], "redis", "no replica", "keeps up"),
    "majority of the sentinels": (
        ["sentinel-1", "sentinel-3"],
        "sentinel",
        "1 of 3 answer, a failover needs 2",
        "refuses connections",
    ),
    "all sentinels": (
        ["sentinel-1", "sentinel-2", "sentinel-3"],
        "redis",
        "no sentinel answers",
        "refuses connections",
    ),
    "both nodes of Redis": (
        ["replica", "redis"],
        "redis",
        "reads come from PostgreSQL",
        # The sentinels' word for it, once they have noticed.
        "refuses connections|failover",
    ),
}


@pytest.mark.parametrize("what", DEGRADED)
def test_degraded_is_0_and_strictly_1(services: Services, what: str) -> None:
    """Seen to fail with the pooler's state DOWN, and with a replica that is gone ignored."""
    names, service, *words = DEGRADED[what]
    services.kill(*names)
    until(lambda: check(services.settings)[service].state is State.DEGRADED)
    lenient, strict = services.command("--json"), services.command("--json", "--strict")
    assert (lenient.returncode, strict.returncode) == (0, 1), lenient.stdout
    assert told(lenient)["state"] == "degraded"
    found = by_name(told(lenient))
    assert found[service]["state"] == "degraded"
    for word in words:
        assert re.search(word, found[service]["why"])
    assert "down" not in {each["state"] for each in found.values()}
    if what == "pooler":
        assert (found["postgresql"]["state"], found["postgresql"]["via"]) == ("ok", "direct")
        assert not found["pgbouncer"]["reachable"]
    if what == "all sentinels":
        assert found["redis"]["via"] == "direct"
        assert found["redis"]["reachable"]
    table = services.command()
    assert words[0] in " ".join(table.stdout.split())


def test_a_single_sentinel_that_is_gone_is_named_and_degrades_nothing(services: Services) -> None:
    services.kill("sentinel-2")
    found = check(services.settings)["sentinel"]
    assert (found.state, found.why) == (State.OK, "")
    assert [each.reachable for each in found.nodes] == [True, False, True]


@pytest.mark.parametrize(("name", "service"), [("postgres", "postgresql"), ("rabbitmq", "broker")])
def test_down_is_2(services: Services, name: str, service: str) -> None:
    """Seen to fail with the broker's state DEGRADED."""
    services.kill(name)
    until(lambda: check(services.settings)[service].state is State.DOWN)
    done = services.command("--json")
    found = by_name(told(done))
    assert (done.returncode, services.command().returncode) == (2, 2)
    assert told(done)["state"] == "down"
    assert found[service]["state"] == "down"
    assert "127.0.0.1" in found[service]["why"]
    others = {"redis": "ok", "sentinel": "ok"}
    assert {each: found[each]["state"] for each in others} == others
    assert (told(done)["outbox"] is None) == (name == "postgres")


def test_without_schema_it_is_down_and_says_what_to_do(services: Services) -> None:
    found = check(attrs.evolve(services.settings, database_schema="nobody"))
    assert found.state is State.DOWN
    assert "migrate up" in found["postgresql"].why
    assert found["postgresql"].reachable


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


# P12

SECRET = "hüsh@/%:#p?w d"
ENCODED = quote(SECRET, safe="")


def spoken(settings: Settings, found: Health) -> str:
    """Everything that a person or a program may get to see."""
    each = " ".join(map(str, found.services))
    return f"{found!r} {found} {each} {attrs.asdict(found)} {settings!r}"


def test_no_secret_is_shown_while_all_is_well_and_while_nothing_is(services: Services) -> None:
    secrets = services.secrets()
    assert len(secrets) > 4
    outputs = [services.command().stdout, services.command("--json").stdout]
    outputs.append(spoken(services.settings, check(services.settings)))
    services.kill(*services.daemons)
    for options in ((), ("--json",), ("--debug",)):
        done = services.command(*options)
        outputs += [done.stdout, done.stderr]
    outputs.append(spoken(services.settings, check(services.settings)))
    for secret in secrets:
        assert not [each for each in outputs if secret in each]


@pytest.mark.parametrize("alive", [True, False])
def test_no_wrong_password_is_shown_by_servers_that_refuse_it(
    services: Services, alive: bool
) -> None:
    """Seen to fail with the bare URL in the reason of each service."""
    wrong = {name: SECRET for name in services.stack.env if name.endswith("_PASSWORD")}
    assert len(wrong) == 4
    env = {**services.stack.env, **wrong}
    if not alive:
        env |= {name: "1" for name in env if name.endswith("_PORT")}
        env["TELEGRAM_REDIS_SENTINELS"] = "127.0.0.1:1"
    settings = Settings.from_env(env)
    found = check(settings)
    assert found.state is State.DOWN
    assert all(each.why for each in found.services), found
    text = spoken(settings, found)
    for options in ((), ("--json",), ("--strict", "--debug")):
        done = services.command(*options, env=env)
        assert done.returncode == 2
        text += done.stdout + done.stderr
    for part in (SECRET, ENCODED, "hüsh", "%3Ap", quote("hüsh")):
        assert part not in text
