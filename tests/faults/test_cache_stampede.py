"""A stampede on one cold key: 8 processes x 50 threads, and exactly one load of the database.

The loads are counted by the database: what the readers read is a view that draws from a sequence
and takes 100 ms. Times are of each reader's own clock, from when it asked; all clocks are the
machine's.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import redis
from sqlalchemy import text
from stand import until

import telegram_hybrid.hybrid as composition
from telegram_hybrid import Hybrid
from telegram_hybrid.cache import Lifetimes
from telegram_hybrid.errors import HybridError
from telegram_hybrid.hybrid import connect
from telegram_hybrid.model import Message, Status
from telegram_hybrid.settings import Settings
from telegram_hybrid.testing import make_message

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

PROCESSES, THREADS = 8, 50
LOAD = 0.1
#: Seconds that a waiter may need on top of the load.
SLACK = 0.020
CHANNEL = -1001
UNKNOWN = 1000  # ids from here on are stored by nobody
WARM = 7  # another message of the channel, to open connections with

# A writer, who holds its channel's lock, goes through the view, too: neither counted nor slow.
SLOW = """
ALTER TABLE {s}.messages RENAME TO messages_stored;
CREATE SEQUENCE {s}.loads;
CREATE FUNCTION {s}.slow() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND mode = 'ExclusiveLock'
    ) THEN
        PERFORM nextval('{s}.loads');
        PERFORM pg_sleep({load});
        IF currval('{s}.loads') <= {failing} THEN
            RAISE EXCEPTION 'this load fails' USING ERRCODE = '57P01';
        END IF;
    END IF;
    RETURN true;
END $$;
CREATE VIEW {s}.messages AS SELECT * FROM {s}.messages_stored WHERE (SELECT {s}.slow());
"""

Read = Callable[[Hybrid], Any]


def get(hybrid: Hybrid) -> Message | None:
    return hybrid.messages.get(CHANNEL, 1)


def latest(hybrid: Hybrid) -> list[Message]:
    return hybrid.messages.latest(CHANNEL, limit=2)


@pytest.fixture
def slow_hybrid(hybrid: Hybrid) -> Hybrid:
    """Two messages, the cache empty, and reads that take their time."""
    hybrid.messages.save_many(make_message(channel_id=CHANNEL, message_id=n) for n in (1, 2, WARM))
    make_slow(hybrid)
    return hybrid


def make_slow(hybrid: Hybrid, failing: int = 0) -> None:
    statements = SLOW.format(s=hybrid.settings.database_schema, load=LOAD, failing=failing)
    with hybrid.engine.begin() as connection:
        connection.connection.driver_connection.execute(statements)


def loads(hybrid: Hybrid) -> int:
    schema = hybrid.settings.database_schema
    with hybrid.engine.connect() as connection:
        query = f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {schema}.loads"
        return int(connection.execute(text(query)).scalar_one())


def forget(hybrid: Hybrid) -> None:
    """Empty the cache and the count."""
    with redis.Redis.from_url(hybrid.settings.redis_url) as client:
        for key in client.scan_iter(f"{hybrid.settings.redis_prefix}:*"):
            client.delete(key)
    schema = hybrid.settings.database_schema
    with hybrid.engine.begin() as connection:
        connection.execute(text(f"ALTER SEQUENCE {schema}.loads RESTART"))


class Crowd:
    """Processes x threads that read at one moment; shared memory says how it went."""

    def __init__(
        self,
        settings: Settings,
        read: Read,
        *,
        lease: float = 10.0,
        processes: int = PROCESSES,
        threads: int = THREADS,
        turns: int = 1,
    ) -> None:
        self.settings, self.read, self.lease = settings, read, lease
        self.processes, self.threads, self.turns = processes, threads, turns
        size = processes * threads
        self.ready = multiprocessing.Value("i", 0)
        self.done = multiprocessing.Value("i", 0)
        #: Processes that gave Redis up for a while, as they may on a machine that is too busy.
        self.upset = multiprocessing.Value("i", 0)
        self.start_at = multiprocessing.Array(ctypes.c_double, turns)
        self.began = multiprocessing.Array(ctypes.c_double, size, lock=False)
        self.ended = multiprocessing.Array(ctypes.c_double, size, lock=False)
        #: The version that each saw; -1 for an error, 0 for nothing yet.
        self.versions = multiprocessing.Array(ctypes.c_long, size, lock=False)
        self._children: list[Any] = []

    def _child(self, number: int) -> None:
        composition.Lifetimes = partial(Lifetimes, lease=self.lease)
        with connect(self.settings) as hybrid:
            hybrid.messages.get(CHANNEL, WARM)
            # Whoever will load has done so before: a new session of the database reads its
            # catalogs first, which takes as long as the load.
            hybrid.messages.get(CHANNEL, UNKNOWN + number)
            hybrid.messages.latest(CHANNEL - 1 - number, limit=2)
            for turn in range(self.turns):
                go = threading.Event()
                threads = [
                    threading.Thread(target=self._reader, args=(hybrid, go, turn, place))
                    for place in range(number * self.threads, (number + 1) * self.threads)
                ]
                for thread in threads:
                    thread.start()
                self._count(self.ready)
                while not self.start_at[turn]:
                    time.sleep(0.01)
                go.set()
                for thread in threads:
                    thread.join()
                self._count(self.done)
            stats = hybrid.cache.stats()
            if stats.errors or stats.skipped or not stats.trusted:
                self._count(self.upset)

    def _count(self, counter: Any) -> None:
        with counter.get_lock():
            counter.value += 1

    def _reader(self, hybrid: Hybrid, go: threading.Event, turn: int, place: int) -> None:
        go.wait()
        time.sleep(max(0.0, self.start_at[turn] - time.monotonic()))
        self.began[place] = time.monotonic()
        try:
            found = self.read(hybrid)
        except HybridError:
            version = -1
        else:
            version = (found if isinstance(found, Message) else found[-1]).version
        self.ended[place] = time.monotonic()
        self.versions[place] = version

    @contextmanager
    def gathered(self) -> Iterator[Crowd]:
        """All processes are there and warm."""
        context = multiprocessing.get_context("fork")
        for number in range(self.processes):
            child = context.Process(target=self._child, args=(number,), daemon=True)
            child.start()
            self._children.append(child)
        try:
            until(lambda: self.ready.value == self.processes, 60)
            yield self
        finally:
            for child in self._children:
                child.kill()
                child.join()

    def go(self, turn: int = 0, *, delay: float = 0.2) -> float:
        """Have them all read at one moment: return it."""
        until(lambda: self.ready.value == self.processes * (turn + 1), 60)
        self.start_at[turn] = at = time.monotonic() + delay
        return at

    def finish(self, turn: int) -> list[float]:
        """How long each reader took in that turn, sorted."""
        until(lambda: self.done.value == self.processes * (turn + 1), 30)
        return self.seconds()

    def wait(self, seconds: float = 30.0) -> None:
        for child in self._children:
            child.join(seconds)
            assert not child.is_alive(), "a reader hangs"

    def kill(self, number: int) -> None:
        os.kill(self._children[number].pid, signal.SIGKILL)
        self._children[number].join()

    def seconds(self) -> list[float]:
        """How long each reader took, sorted."""
        return sorted(end - began for began, end in zip(self.began, self.ended, strict=True) if end)


def p99(times: list[float]) -> float:
    return times[int(len(times) * 0.99) - 1]


class Load:
    """What is left when there is no library, no Redis and no database: one thread of a process
    sleeps for the load's time, and the others wait for its lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded = False

    def __call__(self, hybrid: Hybrid) -> Message:
        with self._lock:
            if not self._loaded:
                time.sleep(LOAD)
                self._loaded = True
        return make_message(version=1)


def woken(settings: Settings) -> list[float]:
    """How long 400 threads take that do nothing but wait for a load and wake up, sorted."""
    crowd = Crowd(settings, Load())
    with crowd.gathered():
        crowd.go()
        return crowd.finish(0)


@pytest.mark.parametrize("read", [get, latest])
def test_400_readers_of_one_cold_key_load_once_and_wait_no_longer_than_the_load(
    slow_hybrid: Hybrid, read: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exactly one load in every round; p99 of the waiters in reach of the load in one of eight.

    The aim is load + 20 ms. Where 400 threads need longer than that to wake up at all, as on two
    processors, no library can reach it; so that is measured in the same run, and 20 ms are allowed
    on top of it. Rounds in which a process took the starved Redis for dead are not counted.

    Seen to fail, with 12 loads, when readers who were refused the lease did not wait.
    """
    report = []
    for _ in range(8):
        forget(slow_hybrid)  # so that each process reads the database before it is measured
        crowd = Crowd(slow_hybrid.settings, read, turns=3)
        with crowd.gathered():
            crowd.go(0)  # opens 400 connections, which is not what is measured
            crowd.finish(0)
            forget(slow_hybrid)
            crowd.go(1)
            cold = crowd.finish(1)
            loaded, versions = loads(slow_hybrid), set(crowd.versions)
            crowd.go(2)
            warm = crowd.finish(2)
            crowd.wait()
        assert len(versions) == 1
        assert min(versions) > 0
        if crowd.upset.value:
            continue
        assert loaded == 1
        least = woken(slow_hybrid.settings)
        allowed = max(LOAD, p99(least)) + SLACK
        report.append((p99(cold), allowed))
        with capsys.disabled():
            print(
                f"\n400 readers, {read.__name__}: 1 load of {LOAD * 1000:.0f} ms; median "
                f"{statistics.median(cold) * 1000:.1f}, p99 {p99(cold) * 1000:.1f} ms; "
                f"all hits: p99 {p99(warm) * 1000:.1f} ms; "
                f"merely woken: median {statistics.median(least) * 1000:.1f}, "
                f"p99 {p99(least) * 1000:.1f} ms",
                end="",
            )
        if p99(cold) < allowed:
            break
    assert report, "no round in which every process kept its Redis"
    slowest, allowed = report[-1]
    assert slowest < allowed


def test_when_the_loader_is_killed_one_other_takes_over_as_its_lease_ends(
    slow_hybrid: Hybrid,
) -> None:
    lease = 1.0
    settings = slow_hybrid.settings
    loader = Crowd(settings, get, lease=lease, processes=1, threads=1)
    others = Crowd(settings, get, lease=lease)
    with loader.gathered(), others.gathered():
        warm = loads(slow_hybrid)
        loader.go(delay=0.0)
        until(lambda: loads(slow_hybrid) == warm + 1, 10)
        loader.kill(0)
        began = others.go(delay=0.0)
        others.wait()
    if not others.upset.value:
        assert loads(slow_hybrid) - warm == 2
    assert len(set(others.versions)) == 1
    assert others.versions[0] > 0
    assert others.seconds()[0] > lease / 2, "the lease was not waited for"
    assert max(others.ended) - began < lease + LOAD + 1.0


def test_when_a_load_fails_the_others_go_on_at_once(hybrid: Hybrid) -> None:
    """The threads of the loader's process that the error is right for get it; nobody else does."""
    hybrid.messages.save(make_message(channel_id=CHANNEL, message_id=1))
    make_slow(hybrid, failing=1)
    crowd = Crowd(hybrid.settings, get)
    with crowd.gathered():
        forget(hybrid)
        began = crowd.go()
        crowd.wait()
    if not crowd.upset.value:
        assert loads(hybrid) == 2
    failed = sum(version == -1 for version in crowd.versions)
    assert 1 <= failed <= THREADS
    assert sum(version > 0 for version in crowd.versions) == PROCESSES * THREADS - failed
    assert max(crowd.ended) - began < 2 * LOAD + 2.0, "the lease is 10 s"


def test_who_begins_after_an_invalidation_never_gets_the_value_before_it(
    slow_hybrid: Hybrid,
) -> None:
    """A commit during the load: three generations at most, each loaded once.

    They are: before the mark; between the mark and the commit, which nobody may fill; after it.
    """
    settings = slow_hybrid.settings
    early, late = Crowd(settings, get), Crowd(settings, get)
    with early.gathered(), late.gathered():
        warm = loads(slow_hybrid)
        early.go(delay=0.0)
        until(lambda: loads(slow_hybrid) == warm + 1, 10)
        marked = slow_hybrid.messages.mark(CHANNEL, 1, Status.QUEUED)
        late.go(delay=0.0)
        early.wait()
        late.wait()
    assert set(late.versions) == {marked.version}
    if not early.upset.value and not late.upset.value:
        assert 2 <= loads(slow_hybrid) - warm <= 3
