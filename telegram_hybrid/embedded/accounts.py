"""Whom servers run as, and where that user can get to: root may not run PostgreSQL."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

import attrs

from telegram_hybrid.errors import EmbeddedError


@attrs.frozen
class Account:
    """The user that servers run as when this process is root."""

    uid: int
    gid: int


def nobody() -> Account:
    """Return the account that servers of root run as."""
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_uid, entry.pw_gid)


def account_for(data: Path) -> Account | None:
    """Return whom servers on `data` run as: None for "as this process", else for root only.

    Data that exists decides: it belongs to somebody already. Raises EmbeddedError if that is not
    us and we are not root.
    """
    try:
        owner = (data / "postgres").stat()
    except FileNotFoundError:
        owner = None
    if os.geteuid() == 0:
        return Account(owner.st_uid, owner.st_gid) if owner and owner.st_uid else nobody()
    if owner and owner.st_uid != os.geteuid():
        raise EmbeddedError(
            f"the data in {data} belongs to user id {owner.st_uid}, and this process runs as "
            f"{os.geteuid()}: run it as that user or as root, or use another directory"
        )
    return None


def make_private(path: Path, account: Account | None) -> Path:
    """Make a directory that only `account` (None: this process) may enter; return it."""
    path.mkdir(mode=0o700, exist_ok=True)
    if account and path.stat().st_uid != account.uid:
        os.chown(path, account.uid, account.gid)
    return path


def can_reach(path: Path, uid: int) -> bool:
    """Whether the user `uid`, without groups, may enter every directory down to `path`, and it."""
    path = path.resolve()
    for step in (*reversed(path.parents), path):
        status = step.stat()
        mine, others = (stat.S_IXUSR, stat.S_IXOTH)
        if not status.st_mode & (mine if status.st_uid == uid else others):
            return False
    return True
