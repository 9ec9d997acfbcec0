"""`relay` and `consume` as processes: they work until they are told to stop, and stop cleanly."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from telegram_hybrid import Hybrid, Settings, connect
from telegram_hybrid.testing import make_messages

from .conftest import COMMAND, Environment, clean_environment, only_line, only_object, run_command

pytestmark = pytest.mark.integration


@contextmanager
def service(
    *arguments: str, env: Environment, cwd: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A command that runs, told to be ready; killed if the test forgets to stop it."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env=clean_environment() | env,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert "Ctrl-C stops" in process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.wait()


def stop(process: subprocess.Popen[str], signum: signal.Signals) -> tuple[str, str]:
    """Send the signal, expect exit code 0, and return the rest of stdout and stderr."""
    process.send_signal(signum)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output, errors


def count(env: Environment, table: str) -> int:
    with psycopg.connect(env["TELEGRAM_DATABASE_URL"]) as connection:
        row = connection.execute(f"SELECT count(*) FROM telegram_gateway.{table}").fetchone()
    assert row is not None
    return int(row[0])


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def hybrid(migrated: Environment) -> Iterator[Hybrid]:
    with connect(Settings.from_env(migrated)) as ready:
        yield ready


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_events_flow_through_both_until_a_signal_stops_them(
    migrated: Environment, hybrid: Hybrid, signum: signal.Signals
) -> None:
    # Broken on purpose: with the signals not blocked before the wait, SIGTERM ended both with -15.
    with (
        service("consume", "--queue", "look", env=migrated) as consumer,
        service("relay", "--json", env=migrated) as relay,
    ):
        hybrid.messages.save_many(make_messages(20))
        wait_for(lambda: count(migrated, "inbox") == 20)
        output, errors = stop(relay, signum)
        assert only_object(output)["published"] == 20
        assert "stopped: 20 published" in errors
        lines = [json.loads(line) for line in stop(consumer, signum)[0].splitlines()]
    assert count(migrated, "outbox") == 0
    assert [line["type"] for line in lines] == ["message.received"] * 20
    assert {line["message"]["message_id"] for line in lines} == {
        message.message_id for message in make_messages(20)
    }
    assert all(line["event_id"] and line["sequence"] > 0 for line in lines)


HANDLER = """
import telegram_hybrid as th
from sqlalchemy import text

@th.consumer(queue="signals")
def on_message(event, tx):
    tx.connection.execute(
        text("INSERT INTO seen (message_id) VALUES (:id)"), {"id": event.message.message_id}
    )
"""


def test_a_function_of_the_current_directory_gets_the_events_in_its_transaction(
    migrated: Environment, hybrid: Hybrid, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(HANDLER)
    with psycopg.connect(migrated["TELEGRAM_DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE seen (message_id bigint PRIMARY KEY)")
    with service("consume", "--json", "app:on_message", env=migrated, cwd=tmp_path) as consumer:
        hybrid.messages.save_many(make_messages(5))
        relay = hybrid.relay()
        while relay.step():
            continue
        relay.close()
        wait_for(lambda: count(migrated, "inbox") == 5)
        counters = only_object(stop(consumer, signal.SIGTERM)[0])
    assert counters["consumed"] == 5
    with psycopg.connect(migrated["TELEGRAM_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT count(*) FROM seen").fetchone() == (5,)


def test_a_reader_that_leaves_stops_the_consumer_and_loses_no_event(
    migrated: Environment, hybrid: Hybrid
) -> None:
    # Broken on purpose: with BrokenPipeError swallowed, all 50 were taken out of the queue.
    with service("consume", "--queue", "look", env=migrated) as consumer:
        assert consumer.stdout is not None
        consumer.stdout.close()
        hybrid.messages.save_many(make_messages(50))
        relay = hybrid.relay()
        while relay.step():
            continue
        relay.close()
        assert consumer.wait(timeout=60) == 0
    assert count(migrated, "inbox") == 0
    with service("consume", "--queue", "look", env=migrated) as again:
        wait_for(lambda: count(migrated, "inbox") == 50)
        assert len(stop(again, signal.SIGTERM)[0].splitlines()) == 50
    assert count(migrated, "dead_letters") == 0


BAD = {
    "no colon": ("app", "'app' has no colon"),
    "no module": ("nowhere:f", "cannot import nowhere"),
    "no function": ("json:nothing", "json has no nothing"),
    "no callable": ("json:__name__", "is not callable"),
}


@pytest.mark.parametrize(("handler", "problem"), BAD.values(), ids=BAD.keys())
def test_a_handler_that_is_none_is_refused(handler: str, problem: str) -> None:
    refused = run_command("consume", "--queue", "look", handler)
    assert refused.returncode == 2
    assert problem in only_line(refused.stderr)


def test_a_queue_without_a_name_is_refused(env: Environment) -> None:
    refused = run_command("consume", env=env)
    assert refused.returncode == 2
    assert "queue" in only_line(refused.stderr)


@pytest.mark.parametrize("command", [["relay"], ["consume", "--queue", "look"]])
def test_a_service_needs_a_broker_that_answers(migrated: Environment, command: list[str]) -> None:
    unset = {name: url for name, url in migrated.items() if name != "TELEGRAM_BROKER_URL"}
    refused = run_command(*command, env=unset)
    assert refused.returncode == 2
    assert "TELEGRAM_BROKER_URL" in only_line(refused.stderr)
    dead = migrated | {"TELEGRAM_BROKER_URL": "amqp://guest:hush@127.0.0.1:1//"}
    failed = run_command(*command, env=dead)
    assert failed.returncode == 1
    assert "127.0.0.1:1" in only_line(failed.stderr)
    assert "hush" not in failed.stderr
