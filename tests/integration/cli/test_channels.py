"""`channels` and `gaps` as an operator uses them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from telegram_hybrid import Channel, Settings, connect
from telegram_hybrid.cli import run
from telegram_hybrid.testing import make_message

from .conftest import Environment

pytestmark = pytest.mark.integration

OLD, NEW = "-414003", "-1001649127710"
Say = Callable[..., str]


@pytest.fixture
def say(
    migrated: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Say:
    """Run a command line in this process: return stdout, or stderr if the code is not 0."""
    for name, value in migrated.items():
        monkeypatch.setenv(name, value)

    def run_here(*arguments: object, code: int = 0) -> str:
        assert run([str(each) for each in arguments]) == code
        out, err = capsys.readouterr()
        return err if code else out

    return run_here


def test_a_channel_is_registered_migrated_put_to_rest_and_its_gaps_are_told(
    migrated: Environment, say: Say
) -> None:
    assert say("channels", "register", OLD, "--label", "signals") == f"{OLD}  signals\n"
    assert say("channels", "migrated", OLD, NEW) == f"{OLD} became {NEW}\n"
    assert say("channels", "deactivate", OLD) == f"{OLD}  signals  inactive\n"
    listed = json.loads(say("channels", "list", "--active", "--json"))
    assert [each["channel_id"] for each in listed["channels"]] == [int(NEW)]
    with connect(Settings.from_env(migrated)) as hybrid:
        hybrid.messages.save_many(make_message(message_id=number) for number in (3, 4, 9))
        hybrid.messages.delete(int(NEW), 4)

    assert say("gaps", NEW).splitlines() == [
        f"{NEW}: 3 known, 3 to 9; 1 of them deleted; 4 ids not known in 1 gap; "
        f"2 before the first; begins in {OLD}",
        "  5-8: 4 ids, between 2024-01-01 12:04 and 2024-01-01 12:09 UTC",
    ]
    found = json.loads(say("gaps", NEW, "--after", "8", "--json"))
    assert (found["missing"], found["gaps"]) == (4, [])
    assert say("gaps").splitlines()[1] == f"{OLD}: nothing is known"


def test_an_import_of_a_refused_channel_says_what_to_do_and_wakes_none(
    migrated: Environment, say: Say, write_export: Callable[..., Path], monkeypatch: Any
) -> None:
    # Broken on purpose: with the reader's channel registered as it is, the import wakes it.
    export, channel_id = write_export(1, 2), -1001234567890
    monkeypatch.setenv("TELEGRAM_UNKNOWN_CHANNELS", "refuse")
    assert "channels register" in say("import", export, code=2)
    with connect(Settings.from_env(migrated)) as hybrid:
        assert hybrid.channels.list() == []
        hybrid.channels.register(Channel(channel_id=channel_id))
        hybrid.channels.deactivate(channel_id)
        say("import", export)
        found = hybrid.channels.get(channel_id)
    assert found is not None
    assert (found.title, found.is_active) == ("Signals", False)
