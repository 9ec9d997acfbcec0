"""Each of the eight daemons is killed, and what the command line says and returns is compared
with what that means."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import attrs
import pytest
from eight import Services
from stand import until

from telegram_hybrid import connect
from telegram_hybrid.health import SECONDS, State, check
from telegram_hybrid.model import Status
from telegram_hybrid.testing import make_message

# One worker of xdist: its servers serve every test here.
pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("health")]


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
