"""Keepers: the programs of a campaign's writers, relays and consumers, as the test holds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("worker.py")


class Keeper:
    """One program, and its child, which is killed, paused and stopped by it."""

    def __init__(self, log: Path, **options: Any) -> None:
        self.role, self.log = options["role"], log
        self.died: list[str] = []  # children that ended by themselves
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM), json.dumps(options)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def kill(self) -> None:
        """SIGKILL for the child; a new one takes its place."""
        self._tell("kill")

    def pause(self, seconds: float) -> None:
        """SIGSTOP for the child, for so long."""
        self._tell(f"pause {seconds}")

    def stop(self) -> None:
        """SIGTERM for the child, and the end of the program; legal again."""
        if self._process.poll() is None:
            self._tell("stop")
            self._process.wait(60)

    def close(self) -> None:
        """End everything at once."""
        self._process.kill()
        self._process.communicate()

    def _tell(self, command: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("died"):
                self.died.append(line.strip())
                continue
            if line.startswith("stopped") and line.split()[1] != "0":
                self.died.append(line.strip())
            return
        raise AssertionError(f"the keeper of a {self.role} ended: {self.log}")
