"""`dlq` and `outbox` as an operator uses them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from stand import until

from telegram_hybrid import Event, Hybrid, Settings, connect
from telegram_hybrid.testing import make_message

from .conftest import Environment, only_object, run_command

pytestmark = pytest.mark.integration


@pytest.fixture
def hybrid(migrated: Environment) -> Iterator[Hybrid]:
    """A store with three events that the queue "prices" gave up."""
    with connect(Settings.from_env(migrated)) as ready:
        failing = ready.consume(fail, queue="prices", max_attempts=1)
        failing.declare()
        for number in range(3):
            channel = -1001 - number % 2
            ready.messages.save(make_message(channel_id=channel, message_id=number))
        relay = ready.relay()
        relay.start()
        failing.start()
        until(lambda: failing.counters.dead == 3, 60)
        assert failing.stop()
        assert relay.stop()
        yield ready


def fail(event: object, tx: object) -> None:
    raise ValueError("no price\nin it")


def test_letters_are_listed_shown_replayed_and_discarded(
    migrated: Environment, hybrid: Hybrid
) -> None:
    listed = only_object(run_command("dlq", "list", "--json", env=migrated).stdout)
    assert listed["count"] == 3
    newest = listed["letters"][0]
    done = run_command("dlq", "list", "--channel", "-1002", env=migrated)
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{listed['letters'][1]['id']}  ")
    assert line.endswith("prices  message.received  -1002/1  ValueError: no price")
    assert "1 of 1 shown" in done.stderr

    shown = only_object(run_command("dlq", "show", newest["id"], env=migrated).stdout)
    assert shown["payload"]["message_id"] == 2
    assert shown["reason"] == "ValueError: no price\nin it"

    replayed = run_command("dlq", "replay", "--channel", "-1002", "--json", env=migrated)
    assert only_object(replayed.stdout) == {"replayed": 1, "unreadable": []}
    replayed = run_command("dlq", "replay", newest["id"], env=migrated)
    assert replayed.stdout == "1 put back into the outbox\n"
    assert run_command("dlq", "replay", newest["id"], env=migrated).stdout.startswith("0 put")

    discarded = run_command("dlq", "discard", "--all", "--why", "a test", env=migrated)
    assert discarded.stdout == "1 discarded\n"
    history = only_object(run_command("dlq", "list", "--settled", "--json", env=migrated).stdout)
    assert [each["outcome"] for each in history["letters"]] == ["replayed", "replayed", "discarded"]
    assert history["letters"][2]["note"] == "a test"
    assert "no dead letters" in run_command("dlq", "list", env=migrated).stderr

    waiting = only_object(run_command("outbox", "list", "--json", env=migrated).stdout)
    assert [each["message_id"] for each in waiting["events"]] == [1, 2]
    assert waiting["count"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["dlq", "replay"],
        ["dlq", "replay", "1", "--all"],
        ["dlq", "discard", "--why", "x"],
        ["dlq", "discard", "1", "--why", " "],
        ["dlq", "list", "--since", "yesterday"],
        ["outbox", "replay"],
        ["outbox", "replay", "--all", "--queue", "prices"],
    ],
)
def test_what_is_not_clearly_meant_is_refused_before_anything_is_done(
    migrated: Environment, arguments: list[str]
) -> None:
    done = run_command(*arguments, env=migrated)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) <= 2


def test_an_unknown_letter_is_an_error_of_one_line(migrated: Environment) -> None:
    for command in ("show", "replay"):
        done = run_command("dlq", command, "99", env=migrated)
        assert (done.returncode, done.stdout) == (2, "")
        assert "there is no dead letter 99" in done.stderr


def test_the_outbox_tells_what_the_broker_refused_and_tries_it_at_once(
    migrated: Environment,
) -> None:
    with connect(Settings.from_env(migrated)) as ready:
        ready.messages.save(make_message(channel_id=-1001, message_id=1))
        relay = ready.relay()
        relay.start()  # no queue is bound
        until(lambda: relay.counters.postponed > 0, 60)
        assert relay.stop()
        with ready.transaction() as tx:
            tx.connection.execute(
                text(
                    f"UPDATE {ready.settings.database_schema}.outbox"
                    " SET not_before = now() + interval '1 hour'"
                )
            )
        shown = run_command("outbox", "list", "--refused", env=migrated)
        assert "no queue is bound" in shown.stdout
        retried = run_command("outbox", "retry", "--channel", "-1001", "--json", env=migrated)
        assert only_object(retried.stdout) == {"retried": 1}
        assert run_command("outbox", "list", "--refused", env=migrated).stdout == ""


def test_stored_messages_are_announced_again(migrated: Environment, hybrid: Hybrid) -> None:
    announced = run_command("outbox", "replay", "--channel", "-1001", "--json", env=migrated)
    assert json.loads(announced.stdout) == {"announced": 2}
    everything = run_command("outbox", "replay", "--all", env=migrated)
    assert everything.stdout == "3 messages announced again\n"


def test_draining_where_there_is_nothing_says_so(migrated: Environment) -> None:
    drained = run_command("dlq", "drain", "--json", env=migrated)
    assert only_object(drained.stdout) == {"messages": 0, "letters": 0}


def test_an_event_that_waits_is_shown_and_discarded(migrated: Environment) -> None:
    with connect(Settings.from_env(migrated)) as ready:
        with ready.transaction() as tx:
            event = tx.publish(Event("orders.sent", {"price": 14}, channel_id=-1001))
        number = str(event.sequence)
        line = run_command("outbox", "list", "--type", "orders.sent", env=migrated).stdout
        assert line.startswith(f"{number}  ")
        assert line.endswith("orders.sent  -1001\n")
        shown = only_object(run_command("outbox", "show", number, "--json", env=migrated).stdout)
        assert (shown["payload"], shown["version"]) == ({"price": 14}, 1)
        discard = ("outbox", "discard", number, "--reason", "a test", "--json")
        done = only_object(run_command(*discard, env=migrated).stdout)
        assert ready.dead_letters.get(done["letter"]).note == "a test"
        assert ready.outbox.backlog().events == 0
        again = run_command(*discard, env=migrated)
        assert again.returncode != 0
        assert f"event {number} does not wait" in again.stderr
