"""Programs: finding the servers' own, and running them for a check, in a scratch folder."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from telegram_hybrid.stack.problem import Problem

_TIMEOUT = 30.0  # seconds, far more than any of them needs


@attrs.frozen
class Verdict:
    """What a program said; `program` is its name and version, None if `missing` here."""

    program: str | None
    problems: tuple[Problem, ...] = ()
    missing: str = ""


def verdict(
    name: str,
    version: str,
    problems: list[Problem],
    done: subprocess.CompletedProcess[str],
    failed: bool,
) -> Verdict:
    """The problems found; if it failed without naming a line, at least what it said last."""
    if failed and not problems:
        problems = [Problem(name, None, last_line(done.stderr or done.stdout), version)]
    return Verdict(version, tuple(problems))


def find(program: str, *folders: str) -> str | None:
    """The program of the path, or of the last folder that fits (/usr/lib/postgresql/*/bin)."""
    found = shutil.which(program)
    for pattern in folders if found is None else ():
        for path in sorted(Path("/").glob(f"{pattern.lstrip('/')}/{program}")):
            found = str(path)
    return found


def run(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    user: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; one that cannot be run has failed, and stderr says why."""
    try:
        return subprocess.run(  # noqa: S603 - a fixed program on a file that the user names
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT,
            cwd=cwd, env=env, stdin=subprocess.DEVNULL, check=False, user=user,
            extra_groups=None if user is None else [],
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]}: {error}")


@contextmanager
def running(
    command: Sequence[str], ready: str, folder: Path, user: int | None
) -> Iterator[tuple[str, bool]]:
    """Run a server until it says `ready` or ends; give what it said and whether it is ready."""
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - as in run
            command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=folder,
            user=user, extra_groups=None if user is None else [], env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            ended = process.poll() is not None
            said = log.read_text(errors="replace")
            if ready in said or ended:
                break
            time.sleep(0.01)
        yield said, ready in said
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(5.0)
        process.kill()
        process.wait()


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards; nobody else may enter it, for copies hold secrets."""
    with tempfile.TemporaryDirectory(prefix="stack-check-") as folder:
        yield Path(folder)


def owner(folder: Path) -> int | None:
    """The user for a program that refuses root, made owner of the folder; None if we are not."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody").pw_uid
    for path in (folder, *folder.iterdir()):
        os.chown(path, nobody, -1)
    return nobody


def version_of(program: str) -> str:
    """ "redis-server 7.0.15" """
    said = run([program, "--version"]).stdout
    found = re.search(r"\d+(\.\d+)+|\d{3}", said)
    return f"{Path(program).name} {found[0]}" if found else Path(program).name


def line_of(path: Path, text: str) -> int | None:
    """The line that sets the longest key which occurs in `text`."""
    best: tuple[int, int] | None = None
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        key = re.match(r'\s*"?([\w.$-]+)', line)
        if key and re.search(rf"(?<![\w.]){re.escape(key[1])}(?![\w.])", text):
            best = max(best or (0, 0), (len(key[1]), number))
    return best[1] if best else None


def last_line(text: str) -> str:
    """What a program said last, never nothing."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "failed without a word"
