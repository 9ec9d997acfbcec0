"""Load on a Redis behind sentinels: what was called, how long it took, and what was lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import redis
from servers.redis_ha import Node

from telegram_hybrid.connect.redis import Directory, directory_of


def directory(client: redis.Redis) -> Directory:
    found = directory_of(client)
    assert found is not None
    return found


def until(condition: Callable[[], bool], seconds: float) -> float:
    """Wait for `condition`; the seconds it took, or a failed test."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"did not happen within {seconds:g} s"
        time.sleep(0.005)
    return time.monotonic() - began


@attrs.define
class Load:
    """Threads that write a key of their own and read it back, over and over."""

    client: redis.Redis
    calls: list[tuple[float, float]] = attrs.field(factory=list)  # began, seconds
    acknowledged: list[tuple[str, float]] = attrs.field(factory=list)  # key, began
    errors: list[Exception] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)

    @contextmanager
    def running(self, threads: int = 8) -> Iterator[None]:
        stop = threading.Event()
        workers = [
            threading.Thread(target=self._work, args=(number, stop)) for number in range(threads)
        ]
        for each in workers:
            each.start()
        try:
            yield
        finally:
            stop.set()
            for each in workers:
                each.join()

    def longest(self) -> float:
        return max(seconds for _, seconds in self.calls)

    def lost(self, server: Node, since: float = 0.0) -> list[str]:
        """Acknowledged keys that `server` does not have, of writes that began after `since`."""
        keys = [key for key, when in self.acknowledged if when >= since]
        found: list[str] = []
        with server.client() as client:
            for at in range(0, len(keys), 1000):
                some = keys[at : at + 1000]
                replies = client.mget(some)
                found += [k for k, v in zip(some, replies, strict=True) if v != k.encode()]
        return found

    def _work(self, number: int, stop: threading.Event) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            key, began = f"load:{number}:{turn}", time.monotonic()
            try:
                self._timed(lambda key=key: self.client.set(key, key))
                self.acknowledged.append((key, began))
                if self._timed(lambda key=key: self.client.get(key)) not in (key.encode(), None):
                    self.wrong.append(key)
            except (redis.RedisError, OSError) as error:
                self.errors.append(error)
            time.sleep(0.002)

    def _timed(self, call: Callable[[], object]) -> object:
        began = time.monotonic()
        try:
            return call()
        finally:
            self.calls.append((began, time.monotonic() - began))
