"""200,000 messages: killed halfway, resumed, compared, in memory that does not grow; minutes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import originals
import pytest
from stand import until

from telegram_hybrid import Hybrid, legacy

from .conftest import Original
from .test_every_server import BY_CHANNEL, COUNTS, UNDATED

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.one_server,
    pytest.mark.timeout(1800),
]

MESSAGES = 200_000


def start(hybrid: Hybrid, original: Original, *options: str) -> subprocess.Popen[str]:
    settings = hybrid.settings
    environment = {
        "TELEGRAM_DATABASE_URL": settings.database_url,
        "TELEGRAM_REDIS_URL": settings.redis_url or "",
        "TELEGRAM_DB_SCHEMA": settings.database_schema,
        "TELEGRAM_REDIS_PREFIX": settings.redis_prefix,
    }
    command = [sys.executable, "-m", "telegram_hybrid", "migrate-legacy", "--json"]
    place = ["--from", original.url, "--from-schema", original.schema]
    return subprocess.Popen(
        [*command, *place, *options],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[dict[str, Any], int]:
    """What it reports, and the most memory it had, in kilobytes."""
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said
    report: dict[str, Any] = json.loads(said)
    return report, used.ru_maxrss


def test_it_is_killed_halfway_resumes_and_agrees(hybrid: Hybrid, original: Original) -> None:
    ours = hybrid.settings.database_schema
    originals.fill(original.connection, original.schema, MESSAGES // 20)
    small = finish(start(hybrid, original, "--dry-run"))[1]
    originals.fill(original.connection, original.schema, MESSAGES, first=MESSAGES // 20 + 1)
    original.ask("ANALYZE {old}.messages")

    def stored() -> int:
        return int(original.one(f"SELECT count(*) FROM {ours}.message_keys"))

    killed = start(hybrid, original)
    until(lambda: stored() > MESSAGES // 2, seconds=900)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    part = stored()
    assert MESSAGES // 2 < part < MESSAGES

    began = time.monotonic()
    report, memory = finish(start(hybrid, original))
    seconds = time.monotonic() - began
    ((rows, messages, texts, channels),) = original.ask(COUNTS)
    found = report["found"]
    assert messages == MESSAGES
    assert (found["rows"], found["messages"], found["channels"]) == (rows, messages, channels)
    assert found["duplicates"] == rows - messages == MESSAGES // 20
    assert found["revisions"] == report["revisions"] == texts - messages
    undated = [count for name, count in found["notices"].items() if "missing" in name]
    assert undated == [original.one(UNDATED)]
    assert (report["resumed"], report["brought"], report["present"]) == (part, messages, 0)
    assert report["problems"] == []
    by_channel = {each["channel_id"]: each for each in report["channels"]}
    for channel_id, of_rows, of_messages in original.ask(BY_CHANNEL):
        each = by_channel[channel_id]
        assert (each["rows"], each["verified"]) == (of_rows, of_messages)
    assert stored() == messages
    # Twenty times the rows in as much memory (P11), but for some slack of the allocator.
    assert memory < small + 40_000

    began_back = time.monotonic()
    removed = legacy.rollback(hybrid)
    assert (removed.messages, removed.stayed, stored()) == (messages, 0, 0)
    print(  # `pytest -s` shows it
        f"\n{rows:,} rows: check, {messages - part:,} messages and comparison {seconds:.1f} s, "
        f"rollback {time.monotonic() - began_back:.1f} s, {memory // 1000} MB"
    )
