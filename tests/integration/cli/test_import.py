"""`import`: what it counts, what it refuses, and that it resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exports
import psycopg
import pytest

from .conftest import Environment, only_line, only_object, run_command

pytestmark = pytest.mark.integration

Write = Callable[..., Path]


def stored(env: Environment) -> list[int]:
    with psycopg.connect(env["TELEGRAM_DATABASE_URL"]) as connection:
        rows = connection.execute(
            "SELECT message_id FROM telegram_gateway.message_keys ORDER BY message_id"
        )
        return [number for (number,) in rows]


def test_the_second_import_of_a_file_finds_only_duplicates(
    migrated: Environment, write_export: Write
) -> None:
    path = write_export(*range(1, 31))
    first = only_object(run_command("import", "--json", path, env=migrated).stdout)
    again = only_object(run_command("import", "--json", path, env=migrated).stdout)
    names = ("messages_read", "inserted", "edited", "duplicates", "skipped")
    assert [first[name] for name in names] == [30, 30, 0, 0, 0]
    assert [again[name] for name in names] == [30, 0, 0, 30, 0]
    assert first["channels"] == ["-1001234567890 Signals"]
    assert stored(migrated) == list(range(1, 31))


def test_people_read_counts_and_channels(migrated: Environment, write_export: Write) -> None:
    done = run_command("import", write_export(1, 2, 3), env=migrated)
    assert done.returncode == 0
    assert "3 messages read from 1 file" in done.stdout
    assert "3 inserted, 0 edited, 0 duplicates, 0 skipped" in done.stdout
    assert "-1001234567890 Signals" in done.stdout
    assert done.stderr == ""  # no terminal, so no progress


BAD = {
    "a NUL": ({"text": "a\0b"}, "text", "NUL"),
    "an id of 2**63": ({"id": 2**63}, "id", "9223372036854775808"),
    "a text of 5 MB": ({"text": "x" * 5_000_000}, "text", "5,000,000"),
    "a date that is none": ({"date": "soon", "date_unixtime": "soon"}, "date", "soon"),
}


@pytest.mark.parametrize(("fields", "field", "problem"), BAD.values(), ids=BAD.keys())
def test_a_bad_message_is_named_and_a_rerun_resumes_behind_it(
    migrated: Environment, write_export: Write, fields: dict[str, Any], field: str, problem: str
) -> None:
    # Broken on purpose: without the reader's `where`, the line names neither file nor position.
    bad = exports.post(3) | fields
    path = write_export(1, 2, bad, 4)
    refused = run_command("import", path, env=migrated)
    line = only_line(refused.stderr)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert f"{path}: messages[2]" in line
    assert f"{field}" in line
    assert problem in line
    assert "2 messages before it are stored" in line
    assert stored(migrated) == [1, 2]

    resumed = run_command("import", "--json", "--on-error", "skip", path, env=migrated)
    counts = only_object(resumed.stdout)
    assert resumed.returncode == 0
    assert (counts["inserted"], counts["duplicates"], counts["skipped"]) == (1, 2, 1)
    assert stored(migrated) == [1, 2, 4]


def test_a_truncated_file_leaves_what_came_before_the_break(
    migrated: Environment, write_export: Write
) -> None:
    path = write_export(1, 2, 3, 4)
    whole = path.read_text()
    path.write_text(whole[: whole.index('"id": 4')])
    refused = run_command("import", path, env=migrated)
    assert refused.returncode == 2
    assert f"{path}: file: truncated at byte" in only_line(refused.stderr)
    assert stored(migrated) == [1, 2, 3]
    path.write_text(whole)
    counts = only_object(run_command("import", "--json", path, env=migrated).stdout)
    assert (counts["inserted"], counts["duplicates"]) == (1, 3)


def test_every_file_is_looked_at_before_anything_is_stored(
    migrated: Environment, write_export: Write, tmp_path: Path
) -> None:
    # Broken on purpose: without check_files, the first file was stored.
    page = tmp_path / "messages.html"
    page.write_text("<html></html>")
    refused = run_command("import", write_export(1), page, env=migrated)
    assert refused.returncode == 2
    assert f"{page}: file: is HTML" in only_line(refused.stderr)
    assert stored(migrated) == []


def test_dates_without_a_zone_are_read_in_the_zone_that_was_given(
    migrated: Environment, write_export: Write
) -> None:
    old = exports.post(1)
    del old["date_unixtime"]
    path = write_export(old)
    done = run_command("import", "--timezone", "Europe/Berlin", path, env=migrated)
    assert "1 dates named no zone" in done.stdout
    with psycopg.connect(migrated["TELEGRAM_DATABASE_URL"]) as connection:
        row = connection.execute(
            "SELECT (sent_at AT TIME ZONE 'UTC')::text FROM telegram_gateway.messages"
        ).fetchone()
    assert row == ("2024-05-01 10:00:00",)
    unknown = run_command("import", "--timezone", "Mars/Base", path, env=migrated)
    assert unknown.returncode == 2
    assert "'Mars/Base' is no zone" in only_line(unknown.stderr)


def test_an_embedded_store_is_kept_in_its_directory(tmp_path: Path, write_export: Write) -> None:
    for inserted in (2, 0):
        done = run_command("import", "--json", "--embedded", tmp_path / "store", write_export(1, 2))
        assert only_object(done.stdout)["inserted"] == inserted


def test_a_store_without_schema_is_told_how_to_get_one(
    env: Environment, write_export: Write
) -> None:
    refused = run_command("import", write_export(1), env=env)
    assert refused.returncode == 1
    assert "python -m telegram_hybrid migrate up" in only_line(refused.stderr)


def test_a_dead_database_is_one_line_without_its_password(write_export: Write) -> None:
    env = {"TELEGRAM_DATABASE_URL": "postgresql://reader:hush@127.0.0.1:1/telegram"}
    refused = run_command("import", write_export(1), env=env)
    line = only_line(refused.stderr)
    assert refused.returncode == 1
    assert "127.0.0.1:1" in line
    assert "hush" not in line


def test_missing_settings_are_named(write_export: Write) -> None:
    refused = run_command("import", write_export(1))
    assert refused.returncode == 2
    assert "TELEGRAM_DATABASE_URL" in only_line(refused.stderr)


def test_a_traceback_is_shown_only_with_debug_on_either_side_of_the_command(
    tmp_path: Path,
) -> None:
    missing = tmp_path / "none.json"
    for arguments in (["--debug", "import", missing], ["import", missing, "--debug"]):
        refused = run_command(*arguments)
        assert refused.returncode == 2
        assert "Traceback" in refused.stderr
    assert "Traceback" not in run_command("import", missing).stderr


def test_an_import_of_updates_counts_what_it_skips_by_reason(
    migrated: Environment, tmp_path: Path
) -> None:
    path = tmp_path / "updates.jsonl"
    chat = {"id": -1001234567890, "type": "channel", "title": "Signals"}
    post = {"message_id": 5, "date": 1714564800, "chat": chat, "text": "hello"}
    poll = {"update_id": 2, "poll": {"id": "1"}}
    path.write_text(
        "\n".join(json.dumps(item) for item in [{"update_id": 1, "channel_post": post}, poll])
    )
    counts = only_object(run_command("import", "--json", path, env=migrated).stdout)
    assert (counts["inserted"], counts["skipped"]) == (1, 1)
    assert sum(counts["skipped_reasons"].values()) == 1
