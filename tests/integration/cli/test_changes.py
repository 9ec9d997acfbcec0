"""`changes` as a script uses it: lines of JSON, and a cursor in a file."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stand import until

from telegram_hybrid import Hybrid, Message, Settings, connect
from telegram_hybrid.cli import run
from telegram_hybrid.cli.changes import _pages
from telegram_hybrid.errors import DatabaseUnavailable
from telegram_hybrid.testing import make_messages

from .conftest import COMMAND, Environment, clean_environment

pytestmark = pytest.mark.integration

CHANNEL = -1001


@pytest.fixture
def hybrid(migrated: Environment) -> Iterator[Hybrid]:
    with connect(Settings.from_env(migrated)) as ready:
        ready.messages.save_many(make_messages(5, channel_id=CHANNEL))
        yield ready


def printed(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def ids(output: str) -> list[int]:
    return [each["message_id"] for each in printed(output)]


def test_each_run_goes_on_where_the_last_one_ended(
    migrated: Environment,
    hybrid: Hybrid,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Broken on purpose: with the cursor of the first page written alone, the second run repeated
    # three messages.
    for name, value in migrated.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "changes.cursor"
    given = ["changes", "--cursor-file", str(file), "--limit", "2"]
    assert run(given) == 0
    lines = printed(capsys.readouterr().out)
    assert [each["message_id"] for each in lines] == [1, 2, 3, 4, 5]
    line = lines[0]
    stored = hybrid.messages.get(CHANNEL, 1)
    assert stored is not None
    assert Message.from_json(json.dumps(line.pop("message"))) == stored
    assert (line["type"], line["status"]) == ("message.received", "received")
    hybrid.messages.delete(CHANNEL, 3)
    assert run(given) == 0
    assert [(each["type"], each["message_id"]) for each in printed(capsys.readouterr().out)] == [
        ("message.deleted", 3)
    ]
    for nothing in (given, ["changes", "--now"], ["changes", "--channel", "-5"]):
        assert run(nothing) == 0
        assert capsys.readouterr() == ("", "")
    file.write_text(file.read_text()[:-3])
    assert run(given) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{file}: cursor: " in said.err
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


def test_a_follower_prints_what_comes_until_it_is_told_to_stop_or_killed(
    migrated: Environment, hybrid: Hybrid, tmp_path: Path
) -> None:
    file, out = tmp_path / "changes.cursor", tmp_path / "out"
    arguments = ["changes", "--follow", "--every", "0.05", "--cursor-file", str(file)]
    seen = 0
    for number, ending in enumerate((signal.SIGTERM, signal.SIGKILL, signal.SIGINT)):
        hybrid.messages.save_many(make_messages(5, first_id=6 + 5 * number, channel_id=CHANNEL))
        with out.open("w") as stdout:
            process = subprocess.Popen(
                [*COMMAND, *arguments], env=clean_environment() | migrated, stdout=stdout
            )
            try:
                count = 5 if seen else 10
                until(lambda count=count: len(out.read_text().splitlines()) >= count, 60)
                seen += count
                cursor = hybrid.messages.changes("now").cursor
                until(lambda cursor=cursor: file.exists() and file.read_text() == f"{cursor}\n")
            finally:
                process.send_signal(ending)
            code = process.wait(30)
        assert code == (-signal.SIGKILL if ending is signal.SIGKILL else 0)
        assert ids(out.read_text()) == list(range(seen - count + 1, seen + 1))


def test_nothing_is_noted_that_nobody_read(
    migrated: Environment, hybrid: Hybrid, tmp_path: Path
) -> None:
    # Broken on purpose: with the cursor written before the lines, the file was there.
    file = tmp_path / "changes.cursor"
    with subprocess.Popen(
        [*COMMAND, "changes", "--cursor-file", str(file)],
        env=clean_environment() | migrated,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 1
    assert not file.exists()


def test_a_follower_outlives_a_database_that_is_away(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(database_url="postgresql://nobody@127.0.0.1:1/none", connect_timeout=0.05)
    with connect(settings) as away:
        pages = _pages(away, None, None, 10, patient=True)
        assert [next(pages), next(pages)] == [None, None]
        assert len(capsys.readouterr().err.splitlines()) == 1
        with pytest.raises(DatabaseUnavailable):
            next(_pages(away, None, None, 10, patient=False))
