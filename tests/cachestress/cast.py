"""The cast of the cache's stress: readers, writers, relays, and what they know together."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from stand import until

from telegram_hybrid.cache import MessageCache
from telegram_hybrid.errors import HybridError
from telegram_hybrid.hybrid import connect
from telegram_hybrid.model import ChannelWrite, Message
from telegram_hybrid.schema.redis import scripts
from telegram_hybrid.settings import Settings
from telegram_hybrid.testing import make_message

CHANNELS = (-1001, -1002)
#: Messages that are edited over and over, and the most that a channel may get.
HOT, ROOM = 20, 50_000
#: Messages at the head whose presence in an answer is checked.
HEAD = 60
READERS, WRITERS = 3, 2
SEED = 20261122
MEMORY = 5 * 2**20


Plan = Callable[[], None]


def faithful() -> None:
    """The cache as it is."""


def deaf() -> None:
    """Planted: marks and invalidations are acknowledged, and do nothing."""
    scripts.MARK = scripts.INVALIDATE = scripts.Script("return 1")


def lenient() -> None:
    """Planted: plain delete. Leases and tombstones outlive what they guard."""
    changes = {
        "MARK": {"most - 1, #KEYS)))\nend\nreturn 1": "most - 1, 2 + values)))\nend\nreturn 1"},
        "INVALIDATE": {
            "redis.call('UNLINK', unpack(leases, from, to))": "",
            "redis.call('SET', KEYS[2], tombstone": "redis.call('SET', KEYS[2], 0",
        },
    }
    for name, replaced in changes.items():
        text = getattr(scripts, name).text
        for before, after in replaced.items():
            if before not in text:
                raise RuntimeError(f"{name} has no {before!r} to be planted in")
            text = text.replace(before, after)
        setattr(scripts, name, scripts.Script(text))


def markless() -> None:
    """Without the mark before the commit: hits are as new as the last invalidation only."""
    MessageCache.mark = lambda *_: False  # type: ignore[method-assign]


class Facts:
    """What all processes know."""

    COUNTS = (
        *("gets", "latest", "after", "seen", "keys", "hits", "errors", "writes", "kills"),
        *("older_than_invalidation", "older_than_commit", "incomplete", "invented"),
        "older_around_failover",
    )

    def __init__(self) -> None:
        def array(kind: Any, size: int) -> Any:
            return multiprocessing.Array(kind, size, lock=False)

        self.applied = {each: array(ctypes.c_long, ROOM) for each in CHANNELS}
        self.committed = {each: array(ctypes.c_long, ROOM) for each in CHANNELS}
        #: Messages whose deletion has begun: nobody can say whether they are still there.
        self.leaving = {each: array(ctypes.c_byte, ROOM) for each in CHANNELS}
        self.next_id = {each: multiprocessing.Value("l", HOT + 1) for each in CHANNELS}
        self.failing = multiprocessing.Value("i", 0)
        self.over = multiprocessing.Value("i", 0)
        self.calm = multiprocessing.Value("i", 0)
        self.relay_died_at = multiprocessing.Value(ctypes.c_double, 0.0)
        self._lock = multiprocessing.Lock()
        self._counts = array(ctypes.c_long, len(self.COUNTS))
        #: Writers that died after the commit: (channel, message, version, monotonic time).
        self.crashes: Any = multiprocessing.SimpleQueue()
        #: How many of these were not seen by readers yet. The relay must live as long.
        self.unseen = multiprocessing.Value("i", 0)
        self.findings: Any = multiprocessing.SimpleQueue()

    def count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                self._counts[self.COUNTS.index(name)] += number

    def __getitem__(self, name: str) -> int:
        return int(self._counts[self.COUNTS.index(name)])

    def add_unseen(self, number: int) -> None:
        with self.unseen.get_lock():
            self.unseen.value += number

    def note(self, array: Any, writes: Sequence[ChannelWrite]) -> None:
        for write in writes:
            for change in write.changes:
                channel, message = change.key
                array[channel][message] = max(array[channel][message], change.version)


class Reader:
    """Threads of one process that read, and compare with what was known when they began."""

    def __init__(self, settings: Settings, facts: Facts, seed: int) -> None:
        self._facts = facts
        with connect(settings) as hybrid:
            self._messages = hybrid.messages
            threads = [
                threading.Thread(target=self._run, args=(random.Random(seed * 100 + one),))
                for one in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            facts.count(hits=hybrid.cache.stats().hits)

    def _run(self, chance: random.Random) -> None:
        reads = (self._get, self._get, self._get_many, self._latest, self._after, self._seen)
        pending: dict[str, int] = {}
        while not self._facts.over.value:
            channel = chance.choice(CHANNELS)
            try:
                for name, number in chance.choice(reads)(channel, chance).items():
                    pending[name] = pending.get(name, 0) + number
            except HybridError:
                pending["errors"] = pending.get("errors", 0) + 1
            if pending.get("keys", 0) >= 200:
                self._facts.count(**pending)
                pending = {}
        self._facts.count(**pending)

    def _get(self, channel: int, chance: random.Random) -> dict[str, int]:
        number = chance.randint(1, HOT)
        check = self._begin(channel, [number])
        found = self._messages.get(channel, number, include_deleted=True)
        check({number: found} if found else {}, lambda _: True)
        return {"gets": 1, "keys": 1}

    def _get_many(self, channel: int, chance: random.Random) -> dict[str, int]:
        top = self._facts.next_id[channel].value
        ids = [*range(1, HOT + 1), *range(max(HOT + 1, top - 20), top)]
        check = self._begin(channel, ids)
        check(self._messages.get_many(channel, ids, include_deleted=True), lambda _: True)
        return {"gets": 1, "keys": len(ids)}

    def _latest(self, channel: int, chance: random.Random) -> dict[str, int]:
        top = self._facts.next_id[channel].value
        limit = chance.choice((10, 50))
        check = self._begin(channel, range(max(1, top - HEAD), top))
        found = self._messages.latest(channel, limit=limit)
        lowest = found[-1].message_id if len(found) == limit else 0
        check({each.message_id: each for each in found}, lambda number: number >= lowest)
        return {"latest": 1, "keys": 1}

    def _after(self, channel: int, chance: random.Random) -> dict[str, int]:
        top = self._facts.next_id[channel].value
        low, limit = max(0, top - chance.randint(5, HEAD)), 20
        check = self._begin(channel, range(low + 1, top))
        found = self._messages.after(channel, message_id=low, limit=limit)
        highest = found[-1].message_id if len(found) == limit else ROOM
        check({each.message_id: each for each in found}, lambda number: number <= highest)
        return {"after": 1, "keys": 1}

    def _seen(self, channel: int, chance: random.Random) -> dict[str, int]:
        top = self._facts.next_id[channel].value
        ids = [*range(max(1, top - 30), top), ROOM + 1]
        known = [i for i in ids[:-1] if self._facts.applied[channel][i]]
        seen = self._messages.seen(channel, ids)
        if not seen.issuperset(known):
            self._found("incomplete", f"seen: {channel} {set(known) - seen}")
        if ROOM + 1 in seen:
            self._found("invented", f"seen: {channel}")
        return {"seen": 1, "keys": len(ids)}

    def _begin(
        self, channel: int, ids: Sequence[int]
    ) -> Callable[[dict[int, Message], Callable[[int], bool]], None]:
        """Note what is known now; the function returned judges an answer by it."""
        facts = self._facts
        failing = facts.failing.value
        applied = [(number, facts.applied[channel][number]) for number in ids]
        committed = {number: facts.committed[channel][number] for number in ids}

        def check(found: dict[int, Message], covers: Callable[[int], bool]) -> None:
            around = failing or facts.failing.value
            for number, least in applied:
                message = found.get(number)
                has = message.version if message else 0
                if not least or facts.leaving[channel][number] or not covers(number):
                    continue
                what = f"{channel} {number}: {has} < {least}, committed {committed[number]}"
                if message is None:
                    self._found("incomplete", what)
                elif has < least:
                    self._found("older_than_invalidation", what)
                elif has < committed[number]:
                    kind = "older_around_failover" if around else "older_than_commit"
                    self._found(kind, what)

        return check

    def _found(self, kind: str, what: str) -> None:
        self._facts.count(**{kind: 1})
        if self._facts[kind] <= 5:
            self._facts.findings.put(f"{kind}: {what} failing={self._facts.failing.value}")


class Writer:
    """Writes until it kills itself at a moment of its choice."""

    def __init__(self, settings: Settings, facts: Facts, seed: int) -> None:
        self._facts = facts
        self._chance = random.Random(seed)
        self._marked = False
        mark, committed = MessageCache.mark, MessageCache.committed

        def marking(cache: MessageCache, writes: Sequence[ChannelWrite]) -> bool:
            self._marked = mark(cache, writes)
            self._maybe_die(0.01)
            return self._marked

        def invalidating(cache: MessageCache, writes: Sequence[ChannelWrite]) -> bool:
            if self._marked:
                facts.note(facts.committed, writes)
            change = writes[0].changes[0]
            self._maybe_die(0.03, (*change.key, change.version, time.monotonic()))
            applied = committed(cache, writes)
            if applied:
                facts.note(facts.applied, writes)
            return applied

        MessageCache.mark, MessageCache.committed = marking, invalidating  # type: ignore[method-assign]
        with connect(settings) as hybrid:
            while not facts.over.value:
                with suppress(HybridError):
                    self._write(hybrid.messages)
                    facts.count(writes=1)
                time.sleep(self._chance.uniform(0.002, 0.03))

    def _write(self, messages: Any) -> None:
        channel = self._chance.choice(CHANNELS)
        kind = self._chance.random()
        if kind < 0.6:
            messages.save(_edited(channel, self._chance.randint(1, HOT)))
        elif kind < 0.9:
            messages.save_many([_fresh(channel, self._new(channel)) for _ in range(2)])
        elif (number := self._new(channel)) > HOT + 5:
            messages.save(_fresh(channel, number))
            self._facts.leaving[channel][number - 3] = 1
            messages.delete(channel, number - 3)

    def _new(self, channel: int) -> int:
        counter = self._facts.next_id[channel]
        with counter.get_lock():
            counter.value += 1
            return int(counter.value) - 1

    def _maybe_die(self, likely: float, crash: tuple[int, int, int, float] | None = None) -> None:
        facts = self._facts
        # A dead writer cannot repeat to a new master what the old one acknowledged to it.
        if facts.failing.value or facts.calm.value or self._chance.random() > likely:
            return
        facts.count(kills=1)
        if crash is not None:
            facts.add_unseen(1)
            facts.crashes.put(crash)
        os.kill(os.getpid(), signal.SIGKILL)


def _fresh(channel: int, number: int) -> Message:
    return make_message(channel_id=channel, message_id=number, text="x" * 300)


def _edited(channel: int, number: int) -> Message:
    now = datetime.now(UTC)
    return make_message(channel_id=channel, message_id=number, text=str(now), edited_at=now)


def relay(settings: Settings, facts: Facts, _: int) -> None:
    with connect(settings) as hybrid:
        worker = hybrid.relay(owner="stress")
        worker.start()
        until(lambda: facts.over.value, 3600)


class Watch:
    """Waits for each crashed commit to be seen by readers; says how long the longest took."""

    def __init__(self, settings: Settings, facts: Facts, _: int) -> None:
        with connect(settings) as hybrid:
            while not facts.over.value:
                if facts.crashes.empty():
                    time.sleep(0.01)
                    continue
                channel, number, version, died_at = facts.crashes.get()
                asleep, around = 0.0, facts.failing.value
                while True:
                    found = hybrid.messages.get(channel, number, include_deleted=True)
                    if found is not None and found.version >= version:
                        break
                    slept = time.monotonic()
                    time.sleep(0.005)
                    asleep = max(asleep, time.monotonic() - slept)
                    if time.monotonic() - died_at > 20:
                        break
                took = time.monotonic() - died_at - asleep
                # A failover, or a relay that has to be started again, takes its own time.
                disturbed = around or facts.failing.value or facts.relay_died_at.value > died_at - 1
                facts.findings.put(("repaired", took, bool(disturbed)))
                facts.add_unseen(-1)
