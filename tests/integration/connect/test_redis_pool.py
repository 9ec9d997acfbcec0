"""The pool of connections to Redis: who waits for one, and which are not used again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import redis
from interruption import Interruption
from servers.valkey import Valkey

from telegram_hybrid.connect.redis import NotConnected, ask, asking, open_redis, pool, restarts


@pytest.fixture(scope="module")
def valkey_url() -> Iterator[str]:
    server = Valkey()
    yield server.url
    server.stop()


def exit_code_of_child(work: Callable[[], object]) -> int:
    """Fork, work there for 5 seconds at most, and return 0 if that is true."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(5)
        code = 1
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_who_waits_for_a_connection_has_the_next_that_is_given_back(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Broken on purpose: without the notice in `release` the threads wait until their patience ends.
    monkeypatch.setattr(pool, "_PATIENCE", 10.0)
    with open_redis(f"{valkey_url}?max_connections=2", deadline=None) as client:
        held = [client.connection_pool.get_connection() for _ in range(2)]
        with ThreadPoolExecutor(20) as threads:
            waiting = [threads.submit(client.get, "none") for _ in range(20)]
            deadline = time.monotonic() + 10
            while client.connection_pool._waiting < 20:
                assert time.monotonic() < deadline
            began = time.monotonic()
            for connection in held:
                client.connection_pool.release(connection)
            assert [each.result(5) for each in waiting] == [None] * 20
            assert time.monotonic() - began < 5


def test_who_gets_none_is_told_what_to_set(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_PATIENCE", 0.1)
    with open_redis(f"{valkey_url}?max_connections=1", deadline=None) as client:
        held = client.connection_pool.get_connection()
        with pytest.raises(NotConnected, match="all 1 connections are in use; set max_connections"):
            client.get("none")
        client.connection_pool.release(held)
        assert client.get("none") is None


def test_a_reply_that_nobody_read_is_nobody_elses(valkey_url: str) -> None:
    # Broken on purpose: with every idle connection taken for ready, the second GET had the
    # first one's reply.
    with open_redis(valkey_url, deadline=None) as client:
        client.mset({"one": "1", "two": "2"})
        connection = client.connection_pool.get_connection()
        connection.send_command("GET", "one")
        assert connection.can_read(timeout=5)
        client.connection_pool.release(connection)
        assert client.get("two") == b"2"
        assert client.connection_pool._created_connections == 1


def test_a_connection_that_the_server_closed_is_opened_again(valkey_url: str) -> None:
    with open_redis(valkey_url, deadline=None) as client:
        assert client.ping()
        with redis.Redis.from_url(valkey_url) as other:
            other.client_kill_filter(_type="normal", skipme=True)
        assert ask(client, [("PING",), ("GET", "none")]) == [b"PONG", None]


def test_a_refusal_stands_in_its_replys_place(valkey_url: str) -> None:
    with open_redis(valkey_url, deadline=None) as client:
        client.delete("list")
        client.rpush("list", "x")
        first, refused, last = ask(client, [("LLEN", "list"), ("GET", "list"), ("LLEN", "list")])
        assert (first, last) == (1, 1)
        assert isinstance(refused, redis.ResponseError)
        assert client.connection_pool._created_connections == 1


def test_who_is_interrupted_between_replies_leaves_none_to_others(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_redis(valkey_url, deadline=None) as client:
        client.mset({"one": "1", "two": "2"})
        connection = client.connection_pool.get_connection()
        read, calls = type(connection).read_response, iter(range(2))

        def interrupted(*args: object, **options: object) -> object:
            if next(calls, None) == 1:
                raise KeyboardInterrupt
            return read(*args, **options)

        monkeypatch.setattr(type(connection), "read_response", interrupted)
        client.connection_pool.release(connection)
        with pytest.raises(KeyboardInterrupt):
            ask(client, [("GET", "one"), ("GET", "two")])
        monkeypatch.undo()
        assert ask(client, [("GET", "one")]) == [b"1"]


def test_a_forked_child_has_connections_of_its_own(valkey_url: str) -> None:
    with open_redis(f"{valkey_url}?max_connections=1", deadline=None) as client:
        own = client.client_id()
        held = client.connection_pool.get_connection()
        assert exit_code_of_child(lambda: client.client_id() != own) == 0
        client.connection_pool.release(held)
        assert client.client_id() == own


def test_a_child_forked_while_a_thread_holds_the_pools_lock_has_one_of_its_own(
    valkey_url: str,
) -> None:
    # Broken on purpose: with the parent's lock the child waited for ever.
    with open_redis(valkey_url, deadline=None) as client:
        assert client.ping()
        held, free = threading.Event(), threading.Event()

        def hold() -> None:
            with client.connection_pool._lock:
                held.set()
                free.wait(20)

        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(5)
        code = exit_code_of_child(client.ping)
        free.set()
        holder.join()
        assert code == 0


def test_threads_share_few_connections_without_losing_any(valkey_url: str) -> None:
    with open_redis(f"{valkey_url}?max_connections=3", deadline=None) as client:
        client.mset({str(number): number for number in range(100)})
        start = threading.Barrier(12)

        def read(thread: int) -> bool:
            start.wait()
            return all(
                ask(client, [("GET", str(number))]) == [str(number).encode()]
                for number in range(thread, 100)
                for _ in range(5)
            )

        with ThreadPoolExecutor(12) as threads:
            assert all(threads.map(read, range(12)))
        at = client.connection_pool
        assert (len(at._available_connections), len(at._in_use_connections)) == (3, 0)


CONNECTING = {module.__file__ for module in (redis.connection, pool, asking, restarts)}


def test_a_connection_that_was_interrupted_while_it_was_made_is_used_by_nobody(
    valkey_url: str,
) -> None:
    # Seen to fail while it was given back as it was: it read and wrote in another database.
    with redis.Redis.from_url(f"{valkey_url}?db=3") as other:
        other.set("name", "three")

    def attempt(at: int) -> int:
        with open_redis(f"{valkey_url}?db=3&socket_timeout=5", deadline=None) as client:
            interruption = Interruption(CONNECTING, at, at_with=False)
            with suppress(Interruption), interruption:
                ask(client, [("GET", "name")])
            found = ask(client, [("GET", "name"), ("CLIENT", "GETNAME")])
            assert found == [b"three", b"telegram_hybrid"], f"line {at} of {interruption.lines}"
            return interruption.lines

    lines = attempt(0)
    assert lines > 100
    for at in range(1, lines + 1):
        attempt(at)
