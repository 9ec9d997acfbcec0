"""The directory when a thread is interrupted, or cannot be had: observers are told all the same.

A handler's exception (Ctrl-C, a time limit) may come at any line of the thread that asks.
"""

from __future__ import annotations

from contextlib import suppress

import pytest
from interruption import Interruption

from telegram_hybrid.connect.redis import directory as directories
from telegram_hybrid.connect.redis import restarts as restarting
from telegram_hybrid.connect.redis.directory import Directory
from telegram_hybrid.connect.redis.discovery import Address, Answer, History, Role
from telegram_hybrid.connect.redis.restarts import Restarts
from telegram_hybrid.connect.redis.url import parse

A, B = Address("10.0.0.1", 1), Address("10.0.0.1", 2)
SENTINEL = Address("10.0.0.9", 1)


class Servers:
    """Sentinels that name a master, which says that it is one."""

    def __init__(self) -> None:
        self.master, self.epoch = A, 0

    def sentinels(self) -> list[Answer]:
        return [Answer(SENTINEL, self.master, self.epoch)]

    def role(self, address: Address) -> Role:
        return Role(is_master=address == self.master, offset=100)

    def history(self, address: Address) -> History:
        return History(str(address), str(A), 100)

    def close(self) -> None:
        pass


def directory_of(servers: Servers) -> Directory:
    directory = Directory(parse(f"redis+sentinel://{SENTINEL}/telegram-redis/0"))
    directory._questions = servers  # type: ignore[assignment]
    return directory


def test_a_change_of_the_master_is_told_whoever_is_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Seen to fail while the new master was taken for known before the observers were told: then
    # nobody told them, and what it lacked was trusted.
    monkeypatch.setattr(Directory, "_watch", lambda _: None)

    def attempt(at: int) -> int:
        servers, heard = Servers(), list[tuple[int, Address]]()
        directory = directory_of(servers)
        directory.observe(lambda epoch, master: heard.append((epoch, master)))
        assert directory.master() == (A, 1)
        servers.master, servers.epoch = B, 1
        directory.doubt(A)
        interruption = Interruption({directories.__file__}, at, at_with=False)
        with suppress(Interruption), interruption:
            directory.master()
        known = directory.master()[0]
        assert heard[-1][1] == known == B, f"line {at} of {interruption.lines}"
        assert heard[-1][0] > 1, "as of another than the first"
        return interruption.lines

    lines = attempt(0)
    assert lines > 20
    for at in range(1, lines + 1):
        attempt(at)


def test_a_restart_is_told_whoever_is_interrupted() -> None:
    # Seen to fail while the new run was taken for known before the observers were told.
    def attempt(at: int) -> int:
        restarts, heard = Restarts(), list[str]()
        restarts.observe(lambda: heard.append("restarted"))
        restarts.met("here", b"1")
        assert heard == []
        interruption = Interruption({restarting.__file__}, at, at_with=False)
        with suppress(Interruption), interruption:
            restarts.met("here", b"2")
        restarts.met("here", b"2")
        assert heard, f"line {at} of {interruption.lines}"
        return interruption.lines

    for at in range(1, attempt(0) + 1):
        attempt(at)


def test_where_no_thread_can_be_started_the_master_is_found_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Seen to fail: every read and every commit raised RuntimeError, though Redis was well.
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    servers = Servers()
    directory = directory_of(servers)
    with monkeypatch.context() as patch:
        patch.setattr(directories.Thread, "start", refuse)
        assert directory.master() == (A, 1)
        servers.master, servers.epoch = B, 1
        directory.doubt(A)
        assert directory.master() == (B, 2)
        directory.close()  # which failed, too: a thread that never began cannot be joined
        assert directory.master() == (B, 2)
    directory.doubt(B)
    directory.master()
    assert directory._watcher is not None
    assert directory._watcher.is_alive(), "it is started when there are threads again"
    directory.close()
