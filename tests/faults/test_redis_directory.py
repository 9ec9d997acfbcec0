"""The directory behind a client: what it leaves behind, and what it does without being called."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from servers.redis_ha import RedisHA

from telegram_hybrid.connect.redis import directory_of, open_redis

pytestmark = pytest.mark.faults


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"did not happen within {seconds:g} s"
        time.sleep(0.005)


def held() -> tuple[int, int]:
    """Open files and threads of this process."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def ours() -> list[str]:
    return [each.name for each in threading.enumerate() if "redis" in each.name]


def test_sentinels_that_flap_leave_no_thread_and_no_socket_behind(ha: RedisHA) -> None:
    # No call is made in between: it goes direct and comes back by itself.
    assert ours() == []
    client = open_redis(ha.url(f"direct={ha.nodes[0].address}"))
    directory = directory_of(client)
    client.set("a", "1")
    flapping, rest = ha.sentinels[0], ha.sentinels[1:]
    for each in rest:
        each.kill()
    until(lambda: directory.view().via == "sentinel")
    before = held()
    for turn in range(20):
        flapping.pause() if turn % 2 else flapping.kill()
        until(lambda: directory.view().via == "direct")
        flapping.resume() if turn % 2 else flapping.start()
        until(lambda: directory.view().via == "sentinel")
    until(lambda: held()[0] <= before[0] + 1 and held()[1] <= before[1] + 4)
    assert directory.view().epoch == 1
    flapping.pause()  # closing does not wait for a question that is under way
    time.sleep(0.1)
    client.close()
    files, _ = held()
    until(lambda: ours() == [])
    until(lambda: not sockets(ha))
    print(f"\nopen files and threads before {before}, after close {files}")


def sockets(ha: RedisHA) -> list[int]:
    """The servers' ports to which this process has connections, by /proc/net/tcp."""
    inodes = set()
    for each in Path("/proc/self/fd").iterdir():
        try:
            inodes.add(os.readlink(each))
        except OSError:
            continue
    ports = {each.port for each in [*ha.nodes, *ha.sentinels]}
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        port = int(fields[2].rpartition(":")[2], 16)
        if port in ports and f"socket:[{fields[9]}]" in inodes:
            found.append(port)
    return found


def test_a_client_that_is_dropped_takes_its_thread_along(ha: RedisHA) -> None:
    client = open_redis(ha.url())
    client.set("a", "1")
    assert ours()
    del client
    gc.collect()
    until(lambda: ours() == [])
    gc.collect()
    assert sockets(ha) == []


def test_a_forked_child_goes_on_although_the_parent_was_asking(ha: RedisHA) -> None:
    # Seen to fail while a child took over the locks as the fork found them: both children wait for
    # ever for a thread that only the parent has. And while it took the master for a new one.
    with open_redis(ha.url(), deadline=5.0) as client:
        client.set("a", "1")
        directory = directory_of(client)
        context = multiprocessing.get_context("fork")
        seen: list[int] = []
        directory.observe(lambda epoch, _: seen.append(epoch))

        def use() -> None:
            threads = [threading.Thread(target=client.get, args=("a",)) for _ in range(8)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            assert client.get("a") == b"1"
            assert directory.view().via == "sentinel"
            assert seen == []  # it is the same master
            client.close()

        for target in (use, client.close):
            locked, forked = threading.Event(), threading.Event()

            def ask(locked: threading.Event, forked: threading.Event) -> None:
                with directory._turn, directory._changed:
                    locked.set()
                    forked.wait(10)

            asking = threading.Thread(target=ask, args=(locked, forked))
            asking.start()
            assert locked.wait(10)
            child = context.Process(target=target)
            child.start()
            forked.set()
            asking.join()
            child.join(10)
            alive = child.is_alive()
            child.kill()
            child.join()
            assert not alive, f"{target.__name__} hangs in the child"
            assert child.exitcode == 0
        assert client.get("a") == b"1"  # the child closed connections of its own only
