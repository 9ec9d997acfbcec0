"""The stage of the cache's stress: keepers of processes, chaos for Redis, and the play."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import attrs
import redis
from servers.redis_ha import RedisHA
from stand import until

from cachestress.cast import (
    CHANNELS,
    HOT,
    MEMORY,
    READERS,
    SEED,
    WRITERS,
    Facts,
    Plan,
    Reader,
    Watch,
    Writer,
    _fresh,
    relay,
)
from telegram_hybrid.embedded import Servers
from telegram_hybrid.hybrid import connect
from telegram_hybrid.settings import Settings


@attrs.define
class Keeper:
    """Keeps processes of one role running, however often they die."""

    role: Any
    settings: Settings
    facts: Facts
    plan: Plan
    size: int
    children: list[Any] = attrs.field(factory=list)
    born: int = 0

    def tend(self) -> None:
        self.children = [child for child in self.children if child.is_alive()]
        while len(self.children) < self.size:
            self.born += 1
            child = multiprocessing.get_context("fork").Process(
                target=self._work, args=(SEED + self.born,), daemon=True
            )
            child.start()
            self.children.append(child)

    def _work(self, seed: int) -> None:
        self.plan()
        self.role(self.settings, self.facts, seed)

    def kill_one(self) -> None:
        if self.children:
            self.facts.relay_died_at.value = time.monotonic()
            os.kill(self.children[0].pid, signal.SIGKILL)

    def end(self) -> None:
        for child in self.children:
            child.join(20)
            if child.is_alive():
                child.kill()
                child.join()


@attrs.define
class Chaos:
    """What happens to Redis, and how often it did."""

    ha: RedisHA
    facts: Facts
    chance: random.Random = attrs.field(factory=lambda: random.Random(SEED))
    flushes: int = 0
    stops: int = 0
    failovers: int = 0
    evicted: int = 0

    def flush(self) -> None:
        self.ha.master().ask("FLUSHALL")
        self.flushes += 1

    def stop(self) -> None:
        master = self.ha.master()
        master.pause()
        time.sleep(self.chance.uniform(0.05, 0.5))
        master.resume()
        self.stops += 1

    def evict(self) -> None:
        with self.ha.master().client(socket_timeout=2.0) as client:
            for number in range(600):
                client.set(f"other:{number}", b"x" * 10_000)

    def fail_over(self) -> None:
        """Kill the master; it comes back as a replica."""
        self.count_evictions()
        self.facts.failing.value = 1
        old = self.ha.master()
        self.failovers += 1
        time.sleep(0.5)  # writers that were about to die have done so
        old.kill()
        until(lambda: _quietly(lambda: self.ha.master() is not old), 30)
        old.start()
        self.ha.settle(60)
        self.limit()
        time.sleep(3.0)
        self.facts.failing.value = 0

    def limit(self) -> None:
        for node in self.ha.nodes:
            # What the replica may still want counts as used.
            node.ask("CONFIG", "SET", "repl-backlog-size", 2**18)
            node.ask("CONFIG", "SET", "maxmemory", MEMORY)
            node.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    def count_evictions(self) -> None:
        for node in self.ha.nodes:
            with node.client() as client:
                self.evicted += int(client.info("stats")["evicted_keys"])
            node.ask("CONFIG", "RESETSTAT")


def _quietly(ask: Callable[[], bool]) -> bool:
    with suppress(redis.RedisError, ValueError):
        return ask()
    return False


@contextmanager
def stage(ha: RedisHA) -> Iterator[tuple[Settings, RedisHA]]:
    with Servers() as servers:
        yield (
            Settings(
                database_url=servers.database_url,
                redis_url=ha.url(),
                broker_url=servers.broker_url,
                pool_size=4,
            ),
            ha,
        )


class Play:
    """All of them at work: what was counted, how long repairs took, and what was found."""

    def __init__(self, stage: tuple[Settings, RedisHA], plan: Plan) -> None:
        self._settings, ha = stage
        self.facts = Facts()
        self.chaos = Chaos(ha, self.facts)
        #: Seconds until the commit of a dead writer was seen; `disturbed`: while a relay was dead
        #: as well, or Redis failed over.
        self.repairs: list[float] = []
        self.disturbed: list[float] = []
        self.found: list[str] = []
        sizes = {Reader: READERS, Writer: WRITERS, relay: 1, Watch: 1}
        self._keepers = {
            role: Keeper(role, self._settings, self.facts, plan, size)
            for role, size in sizes.items()
        }
        self._moves = [
            *(self.chaos.flush, self.chaos.stop, self.chaos.evict),
            self._keepers[relay].kill_one,
        ]

    def run(self, goes_on: Callable[[Play], bool], *, harm: bool = True) -> None:
        """Go on while `goes_on`, with some harm done every second, and one failover in twelve."""
        self.chaos.limit()
        self.chaos.flush()
        with connect(self._settings) as hybrid:
            hybrid.migrate()
            # An event that no queue wants would hold up its channel, longer with each try; and
            # with it the relay's invalidations for what comes behind it.
            hybrid.consume(lambda event, tx: None, queue="stress").declare()
            hybrid.messages.save_many(
                _fresh(channel, number) for channel in CHANNELS for number in range(1, HOT + 1)
            )
            try:
                self._work(goes_on, harm)
            finally:
                self.facts.over.value = 1
                for keeper in self._keepers.values():
                    keeper.end()
                self._collect()
                self.chaos.count_evictions()
                hybrid.destroy()

    def _work(self, goes_on: Callable[[Play], bool], harm: bool) -> None:
        done, next_harm = 0, time.monotonic() + 2.0
        while goes_on(self):
            for keeper in self._keepers.values():
                keeper.tend()
            self._collect()
            if harm and time.monotonic() > next_harm:
                done += 1
                if done % 12 == 6:
                    self.chaos.fail_over()
                else:
                    self._moves[done % len(self._moves)]()
                next_harm = time.monotonic() + self.chaos.chance.uniform(0.5, 1.5)
            time.sleep(0.05)
        self.facts.calm.value = 1
        time.sleep(0.2)
        self._keepers[relay].tend()
        patience = time.monotonic() + 30.0
        while self.facts.unseen.value and time.monotonic() < patience:
            time.sleep(0.01)

    def _collect(self) -> None:
        while not self.facts.findings.empty():
            each = self.facts.findings.get()
            if isinstance(each, str):
                self.found.append(each)
            else:
                (self.disturbed if each[2] else self.repairs).append(each[1])

    def __str__(self) -> str:
        facts, chaos = self.facts, self.chaos
        counts = ", ".join(f"{each} {facts[each]:,}" for each in facts.COUNTS)
        longest = f"{max(self.repairs, default=0.0):.2f}"
        disturbed = f"{max(self.disturbed, default=0.0):.2f}"
        return (
            f"{counts}; flushes {chaos.flushes}, stops {chaos.stops}, failovers "
            f"{chaos.failovers}, evicted {chaos.evicted}; {len(self.repairs)} commits of dead "
            f"writers, unseen for {longest} s at most, and {len(self.disturbed)} around a failover "
            f"or a relay's death, for {disturbed} s"
        )
