"""`demo` on the sample that ships: the whole way, once and again."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stand import until

from .conftest import COMMAND, clean_environment, only_line, only_object, run_command

pytestmark = pytest.mark.integration

SAMPLE = 57
FIGURES = {"save", "get_hit", "get_miss", "latest", "seen", "end_to_end"}


def test_the_sample_goes_the_whole_way_once_and_is_known_the_second_time(tmp_path: Path) -> None:
    # Broken on purpose: with the relay's thread never started, the run ends with an error.
    data = tmp_path / "posts"
    done = run_command("demo", "--json", "--data", data)
    assert done.returncode == 0
    assert done.stderr == ""
    first = only_object(done.stdout)
    counts = ("messages_read", "inserted", "edited", "duplicates", "skipped")
    assert [first[name] for name in counts] == [SAMPLE, SAMPLE, 0, 0, 0]
    assert first["published"] == first["consumed"] == SAMPLE
    assert first["stored"] == first["consumed_total"] == SAMPLE
    assert first["cache_hits"] > 0
    assert first["cache_misses"] > 0
    assert first["seconds"] > 0
    assert set(first["latency_ms"]) == FIGURES
    for figure in first["latency_ms"].values():
        assert 0 < figure["p50"] <= figure["p95"] <= figure["p99"]
    assert first["samples"]["save"] == first["samples"]["end_to_end"] == SAMPLE // 10

    again = only_object(run_command("demo", "--json", "--data", data).stdout)
    assert [again[name] for name in counts] == [SAMPLE, 0, 0, SAMPLE, 0]
    assert again["published"] == again["consumed"] == 0
    assert again["stored"] == again["consumed_total"] == SAMPLE
    assert again["latency_ms"]["end_to_end"] is None
    assert again["latency_ms"]["save"]["p50"] > 0


def test_people_get_a_table_of_eighty_columns_and_what_to_do_next() -> None:
    done = run_command("demo")
    assert done.returncode == 0
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert f"events consumed{' ' * 12}{SAMPLE}" in done.stdout
    assert "commit to handler" in done.stdout
    assert "Next:" in done.stdout


def test_a_file_that_is_no_export_is_refused_before_any_server_starts(tmp_path: Path) -> None:
    path = tmp_path / "notes.json"
    path.write_text("{}")
    data = tmp_path / "posts"
    refused = run_command("demo", "--data", data, path)
    assert refused.returncode == 2
    assert str(path) in only_line(refused.stderr)
    assert not data.exists()


def test_a_bad_message_is_named_and_what_was_committed_stays(
    tmp_path: Path, write_export: Callable[..., Path]
) -> None:
    data = tmp_path / "posts"
    refused = run_command("demo", "--data", data, write_export(1, 2, {"id": 3}, name="bad.json"))
    assert refused.returncode == 2
    assert "messages[2]" in only_line(refused.stderr)
    resumed = run_command("demo", "--json", "--data", data, write_export(1, 2, 3))
    counts = only_object(resumed.stdout)
    assert counts["stored"] == counts["consumed_total"] == 3


def test_ctrl_c_is_one_line_and_130(write_export: Callable[..., Path]) -> None:
    # The last 200 of these posts arrive live, at 50/s: it runs for 4 seconds at least.
    path = write_export(*range(1, 2_001))
    process = subprocess.Popen(
        [*COMMAND, "demo", str(path)],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, as these tests may be, ignores interrupts, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # Not while it imports: Python drops an interrupt that comes in a callback of its import locks.
    tasks = Path(f"/proc/{process.pid}/task")
    until(lambda: any(each.read_text() for each in tasks.glob("*/children")), 60.0)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output == ""
    assert only_line(errors) == "telegram_hybrid: interrupted"


def test_a_directory_in_use_is_refused_by_name(tmp_path: Path) -> None:
    from telegram_hybrid.embedded.servers import Servers

    with Servers(tmp_path / "posts"):
        refused = run_command("demo", "--data", tmp_path / "posts")
    assert refused.returncode == 1
    assert "is in use" in only_line(refused.stderr)


def test_a_file_where_the_data_belongs_is_wrong_usage(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for data in (file, file / "below"):
        refused = run_command("demo", "--data", data)
        assert refused.returncode == 2
        assert str(data) in only_line(refused.stderr)
    assert file.read_text() == "mine"
