"""Who uses a directory: locks that servers inherit, temporary directories and their reaping."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import signal
import tempfile
import time
from pathlib import Path

import attrs

from telegram_hybrid.embedded.accounts import can_reach, nobody
from telegram_hybrid.errors import EmbeddedError

PREFIX = "telegram-hybrid-"
# sun_path holds 108 bytes with its NUL; "/telegram-hybrid-xxxxxxxx/s/.s.PGSQL.5432.lock" takes 47.
_LONGEST_BASE = 60
_DYING_SECONDS = 15.0  # a server whose parent is gone: PostgreSQL gives its children 5 s
_STUCK_SECONDS = 2.0
_RELEASING_SECONDS = 0.5  # an owner that is just closing, or has locked and not yet signed
_POLL_SECONDS = 0.02
_log = logging.getLogger(__name__)


@attrs.frozen
class Held:
    """A directory that this process holds locked; `fd` is what servers inherit."""

    path: Path
    fd: int

    def release(self) -> None:
        """Let go of the lock; servers that inherited it still hold it until they end."""
        # Closing twice could close somebody else's file, so callers do it once.
        os.close(self.fd)


def hold(path: Path) -> Held:
    """Lock a directory and sign it with our pid; raise EmbeddedError if somebody else has it.

    Servers inherit the lock, so it also waits (up to 15 s) for those of an owner that was killed.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(fd, path)
        signature = os.open(
            "pid", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644, dir_fd=fd
        )
        with open(signature, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
    except BaseException:
        os.close(fd)
        raise
    return Held(path, fd)


def _lock(fd: int, path: Path) -> None:
    started = time.monotonic()
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        waited = time.monotonic() - started
        owner = _signature(path)
        if owner is None or _lives(owner):
            if waited > _RELEASING_SECONDS:
                by = f"process {owner}" if owner else "another process"
                raise EmbeddedError(
                    f"the directory {path} is in use by {by}: "
                    "stop that one first, or use another directory"
                )
        elif waited > _DYING_SECONDS:
            raise EmbeddedError(
                f"the directory {path} is still in use by servers of process {owner}, "
                "which has ended: end them (fuser -v on the directory shows them)"
            )
        elif waited > _STUCK_SECONDS:
            for server_directory in path.iterdir():
                end_strays(server_directory)
        time.sleep(_POLL_SECONDS)


def _signature(path: Path) -> int | None:
    try:
        return int((path / "pid").read_text("ascii"))
    except (FileNotFoundError, ValueError):
        return None


def _lives(pid: int) -> bool:
    """Whether `pid` runs; a zombie, killed but not yet waited for, does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return False
    else:
        return status.rpartition(")")[2].split()[0] not in "ZX"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end_strays(directory: Path) -> bool:
    """Kill every PostgreSQL process that works in `directory`; return whether there was one.

    For backends that outlived a killed postmaster: one in a long computation would run on and
    keep the shared memory block that forbids a new start. Killing them is what a crash is, and
    recovery follows anyway. Call it only while holding the directory, or waiting for a dead owner.
    """
    try:
        home = directory.stat()
    except FileNotFoundError:
        return False
    found = False
    for process in Path("/proc").glob("[0-9]*"):
        # Most processes are not ours to look at, and any may end while we look.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if (process / "comm").read_bytes() != b"postgres\n":
                continue
            working = (process / "cwd").stat()
            if (working.st_dev, working.st_ino) == (home.st_dev, home.st_ino):
                os.kill(int(process.name), signal.SIGKILL)
                found = True
    return found


def make_temporary() -> Held:
    """Make, lock and return a directory with a short path; reap those of killed processes."""
    base = _temporary_base()
    _reap(base)
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        # A reaper may take a directory before we lock it: then it is gone, and we make another.
        with contextlib.suppress(FileNotFoundError):
            return hold(path)


def _temporary_base() -> Path:
    base = Path(tempfile.gettempdir())
    fits = len(os.fsencode(base)) <= _LONGEST_BASE and re.fullmatch(r"[\w./+-]+", str(base))
    if fits and (os.geteuid() != 0 or can_reach(base, nobody().uid)):
        return base
    return Path("/tmp")  # noqa: S108 - mkdtemp below it is safe, and no path is shorter


def _reap(base: Path) -> None:
    for path in base.glob(PREFIX + "*"):
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_uid == os.geteuid() and path.is_dir() and not path.is_symlink():
                _remove_if_abandoned(path)


def _remove_if_abandoned(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(path)
    finally:
        os.close(fd)


def remove(path: Path) -> None:
    """Remove a tree; what cannot be removed is logged and left to a later start."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        _log.debug("%s is gone already", path)
    except OSError as error:
        _log.warning("cannot remove %s: %s", path, error)
