"""The written systemd units: what they say to run, with the environment that they name, serves.

systemd itself is not here; `stack check` asks it about their keys. This runs their ExecStart, and
ends it with their signal.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from servers.stack import NativeStack, read_env
from stand import until

import telegram_hybrid as th
from telegram_hybrid.settings import Settings
from telegram_hybrid.testing import make_message

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def told_by(unit: Path) -> dict[str, str]:
    """The settings of a unit; the last of a name counts."""
    lines = unit.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and line[0] not in "#;[")


@contextmanager
def running(stack: NativeStack, name: str) -> Iterator[subprocess.Popen[str]]:
    """A service as its unit describes it: nothing of our own environment reaches it."""
    unit = told_by(stack.folder / f"systemd/telegram-{name}.service")
    log = stack.folder / f"{name}.log"
    with log.open("w") as said:
        process = subprocess.Popen(
            shlex.split(unit["ExecStart"]),
            env=read_env(Path(unit["EnvironmentFile"])),
            cwd=Path(__file__).parents[3],
            stdout=said,
            stderr=said,
            text=True,
        )
    try:
        yield process
        assert process.poll() is None, log.read_text()
        process.send_signal(signal.Signals[unit["KillSignal"]])
        assert process.wait(float(unit["TimeoutStopSec"])) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def test_relay_and_consumer_serve_as_their_units_say(own_stack: NativeStack) -> None:
    # Seen to fail with a queue for the consumer that its user may not make.
    own_stack.start()
    printed = own_stack.folder / "consumer.log"
    with th.connect(Settings.from_env(own_stack.env)) as hybrid:
        hybrid.migrate()
        with ExitStack() as services:
            services.enter_context(running(own_stack, "consumer"))
            until(lambda: "waiting for events" in printed.read_text(), seconds=30)
            services.enter_context(running(own_stack, "relay"))
            hybrid.messages.save(make_message(message_id=7))
            until(lambda: '"message_id":7' in printed.read_text().replace(" ", ""), seconds=30)
    lines = [line for line in printed.read_text().splitlines() if line.startswith("{")]
    assert [json.loads(line)["type"] for line in lines] == ["message.received"]


@pytest.mark.parametrize("name", ["relay", "consumer"])
def test_bad_settings_end_a_service_with_the_code_that_its_unit_does_not_restart(
    own_stack: NativeStack, name: str
) -> None:
    unit = told_by(own_stack.folder / f"systemd/telegram-{name}.service")
    done = subprocess.run(
        shlex.split(unit["ExecStart"]),
        env={**read_env(Path(unit["EnvironmentFile"])), "TELEGRAM_DB_PORT": "many"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == int(unit["RestartPreventExitStatus"])
    assert "TELEGRAM_DB_PORT" in done.stderr
