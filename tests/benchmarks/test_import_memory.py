"""An import's memory does not depend on how many messages there are (promise P11)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import exports
import pytest

pytestmark = pytest.mark.benchmarks

#: TELEGRAM_HYBRID_BENCH_MESSAGES may ask for fewer.
MANY = int(os.environ.get("TELEGRAM_HYBRID_BENCH_MESSAGES", "1000000"))
FEW = 10_000


def write_export(path: Path, count: int) -> None:
    """Write a channel's export of generated posts, one at a time."""
    head = json.dumps(exports.channel())
    with path.open("w") as file:
        file.write(head.removesuffix("]}"))
        for number in range(count):
            # A post a minute, from 2010 on: over many partitions, as a long-lived channel is.
            sent = 1_262_304_000 + number * 60
            text = f"post {number}: " + "what was said, " * (number % 20)
            raw = exports.post(number, date_unixtime=str(sent), text=text)
            file.write((",\n" if number else "") + json.dumps(raw))
        file.write("]}")


def peak_of_import(path: Path, data: Path) -> tuple[int, float]:
    """Import the file; return the importing process's peak of resident memory and its seconds.

    VmHWM is that peak (proc(5)); the servers are processes of their own and not in it.
    """
    peak, begun = 0, time.monotonic()
    run = [sys.executable, "-m", "telegram_hybrid", "import", "--json", "--embedded", str(data)]
    with subprocess.Popen([*run, str(path)], stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    peak = max(peak, int(line.split()[1]) * 1024)
            time.sleep(0.02)
        assert process.stdout is not None
        result = json.loads(process.stdout.read())
    assert result["inserted"] == result["messages_read"]
    return peak, time.monotonic() - begun


@pytest.mark.timeout(3600)
def test_a_million_messages_need_no_more_memory_than_ten_thousand(tmp_path: Path) -> None:
    # Broken on purpose: with `list(reader)` given to save_many, the larger import's peak grew with
    # the file.
    peaks = {}
    for count in (FEW, MANY):
        path = tmp_path / f"{count}.json"
        write_export(path, count)
        peaks[count], seconds = peak_of_import(path, tmp_path / f"data-{count}")
        print(
            f"{count:,} messages, {path.stat().st_size / 1e6:.0f} MB: "
            f"peak {peaks[count] / 1e6:.1f} MB, {seconds:.1f} s, {count / seconds:,.0f}/s"
        )
        path.unlink()
    assert peaks[MANY] <= 1.2 * peaks[FEW]
