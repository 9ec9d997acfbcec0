"""`migrate-legacy` and `rollback-legacy`: exit codes, reports, and a process killed halfway."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

import attrs
import originals
import psycopg
import pytest
from stand import until

from telegram_hybrid import Settings, connect
from telegram_hybrid.cli import run
from telegram_hybrid.outbox.locks import lock_channels

from .conftest import COMMAND, Environment, clean_environment, only_line, only_object

pytestmark = pytest.mark.integration

FIRST, SECOND, THIRD = sorted(originals.CHANNELS)


@pytest.fixture
def source(env: Environment) -> str:
    """The URL of the original's database, with 450 messages under the schema of both systems."""
    url = env["TELEGRAM_DATABASE_URL"]
    name = url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}_old")
    old = url.replace(f"/{name}?", f"/{name}_old?")
    with psycopg.connect(old, autocommit=True) as connection:
        originals.build(connection, "telegram_gateway")
        originals.fill(connection, "telegram_gateway", 450)
    return old


@attrs.frozen
class Done:
    """What a command said, as `subprocess.run` would tell it."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process: there are many, and each would be a Python to start."""

    def run_here(*arguments: str, env: Environment) -> Done:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        code = run(arguments)
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run_here


def stored(env: Environment) -> int:
    with psycopg.connect(env["TELEGRAM_DATABASE_URL"]) as connection:
        row = connection.execute("SELECT count(*) FROM telegram_gateway.messages").fetchone()
    assert row is not None
    return int(row[0])


def test_people_read_what_was_found_brought_and_compared(
    command: Command, migrated: Environment, source: str
) -> None:
    tried = command("migrate-legacy", "--from", source, "--dry-run", env=migrated)
    assert tried.returncode == 0
    assert "472 rows are 450 messages of 3 channels, with 22 duplicates" in tried.stdout
    assert "telegram_date missing" in tried.stdout
    assert "nothing was written" in tried.stdout
    assert stored(migrated) == 0

    done = command("migrate-legacy", "--from", source, env=migrated)
    assert done.returncode == 0
    assert "450 brought, 0 present before" in done.stdout
    assert "counts and checksums agree" in done.stdout
    assert str(FIRST) in done.stdout
    assert done.stderr == ""  # no terminal, so no progress
    assert stored(migrated) == 450

    refused = command("rollback-legacy", env=migrated)
    assert refused.returncode == 2
    assert "--yes" in only_line(refused.stderr)
    removed = command("rollback-legacy", "--yes", env=migrated)
    assert "450 messages" in removed.stdout
    assert stored(migrated) == 0


def test_rows_that_cannot_be_brought_are_exit_code_two_and_listed(
    command: Command, migrated: Environment, source: str
) -> None:
    with psycopg.connect(source) as connection:
        connection.execute(
            "INSERT INTO telegram_gateway.messages (channel_id, message_id, received_at) "
            "VALUES ('@signals', 9000, now())"
        )
    for extra in ([], ["--dry-run"]):
        refused = command("migrate-legacy", "--from", source, "--json", *extra, env=migrated)
        assert refused.returncode == 2
        assert only_object(refused.stdout)["found"]["refused"] == {"channel_id": 1}
        assert "1 of 473 cannot be brought" in only_line(refused.stderr)
    assert stored(migrated) == 0
    named = f"@signals={FIRST}"
    done = command("migrate-legacy", "--from", source, "--channel", named, "--json", env=migrated)
    report = only_object(done.stdout)
    assert done.returncode == 0
    assert (report["brought"], report["problems"]) == (451, [])
    assert report["found"]["duplicates"] == 22


def test_what_does_not_agree_is_exit_code_one(
    command: Command, migrated: Environment, source: str
) -> None:
    command("migrate-legacy", "--from", source, env=migrated)
    with psycopg.connect(migrated["TELEGRAM_DATABASE_URL"]) as connection:
        connection.execute("UPDATE telegram_gateway.messages SET text = '' WHERE message_id = 40")
    found = command("migrate-legacy", "--from", source, env=migrated)
    assert found.returncode == 1
    assert "does not agree: channel" in found.stderr


def test_the_same_schema_for_both_is_refused_with_what_to_do(
    command: Command, env: Environment, source: str
) -> None:
    own = {**env, "TELEGRAM_DATABASE_URL": source}
    refused = command("migrate-legacy", "--from", source, env=own)
    assert refused.returncode == 2
    assert "--to-schema" in only_line(refused.stderr)
    elsewhere = command("migrate-legacy", "--from", source, "--to-schema", "hybrid", env=own)
    assert elsewhere.returncode == 1
    assert "TELEGRAM_DB_SCHEMA=hybrid python -m telegram_hybrid migrate up" in elsewhere.stderr
    command("migrate", "up", env={**own, "TELEGRAM_DB_SCHEMA": "hybrid"})
    done = command("migrate-legacy", "--from", source, "--to-schema", "hybrid", env=own)
    assert done.returncode == 0
    assert "450 brought" in done.stdout
    unnamed = command("migrate-legacy", "--from", source, "--channel", "x", env=own)
    assert unnamed.returncode == 2


def test_passwords_are_not_told(command: Command, migrated: Environment) -> None:
    url = migrated["TELEGRAM_DATABASE_URL"]
    name = url.partition("?")[0].rpartition("/")[2]
    wrong = url.replace("postgres@", "postgres:hush@").replace(f"/{name}?", "/nosuch?")
    refused = command("migrate-legacy", "--from", wrong, env=migrated)
    assert refused.returncode == 1
    assert "nosuch" in only_line(refused.stderr)
    assert "hush" not in refused.stderr


def test_a_process_killed_halfway_is_run_again_and_ends_with_all(
    command: Command, migrated: Environment, source: str
) -> None:
    # Broken on purpose: beginning each channel anew, it was refused as another process.
    with connect(Settings.from_env(migrated)) as hybrid, hybrid.engine.begin() as blocker:
        # The first two channels go through; at the third it waits, and dies.
        lock_channels(blocker, "telegram_gateway", [THIRD])
        process = subprocess.Popen(
            [*COMMAND, "migrate-legacy", "--from", source],
            env=clean_environment() | migrated,
            stdout=subprocess.DEVNULL,
        )
        try:
            until(lambda: stored(migrated) == 300, seconds=60)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    report = only_object(command("migrate-legacy", "--from", source, "--json", env=migrated).stdout)
    assert (report["resumed"], report["brought"], report["present"]) == (300, 450, 0)
    assert report["problems"] == []
    assert stored(migrated) == 450
