"""The deployment's eight daemons, running, to be killed and made mute."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from urllib.parse import quote

import attrs
from servers.daemon import Daemon, descendants
from servers.stack import NativeStack, read_env
from stand import until

from telegram_hybrid import Settings
from telegram_hybrid.health import State, check


@attrs.frozen
class Services:
    """The running daemons, to be killed and made mute; `restore` brings all of them back."""

    stack: NativeStack
    daemons: dict[str, Daemon]

    @property
    def settings(self) -> Settings:
        return self.stack.settings

    def kill(self, *names: str) -> None:
        for name in names:
            self.daemons[name].kill()

    def pause(self, *names: str) -> None:
        for name in names:
            self._signal(name, signal.SIGSTOP)

    def restore(self) -> None:
        for name in self.daemons:
            self._signal(name, signal.SIGCONT)
        self.stack.start()
        until(self.is_well, seconds=60)

    def _signal(self, name: str, number: signal.Signals) -> None:
        """To a daemon and its children: PostgreSQL's go on without the one that made them."""
        pid = self.daemons[name].pid
        for each in {pid, *descendants(pid)} if pid is not None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)

    def is_well(self) -> bool:
        return check(self.settings).state is State.OK

    def command(
        self, *options: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`python -m telegram_hybrid health`, as somebody calls it who loaded the .env."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TELEGRAM_")}
        return subprocess.run(
            [sys.executable, "-m", "telegram_hybrid", "health", *options],
            env={**kept, **(env or self.stack.env), "COLUMNS": "100"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def secrets(self) -> set[str]:
        """Every password of the deployment, as it is and as URLs have it."""
        found = read_env(self.stack.folder / "secrets.env").values()
        return {*found, *(quote(each, safe="") for each in found)}
