"""Schedule: which delivered event is handled next; pure, with the clock passed in.

Events of one key (a channel's routing key) are handed out in the order of their arrival, one at a
time. While an event waits for its next attempt, the later ones of its key wait behind it; other
keys go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Generic, TypeVar

import attrs

from telegram_hybrid.delivery.backoff import REHANDLE, Backoff

T = TypeVar("T")


@attrs.frozen(slots=True)
class Job(Generic[T]):
    """One delivered event: its `key`, its `identity` over redeliveries, and the delivery."""

    key: str
    identity: str
    delivery: T


@attrs.frozen(slots=True)
class GiveUp:
    """The event has failed `attempts` times: make it a dead letter, then call `done`."""

    attempts: int


@attrs.frozen(slots=True)
class TryAgain:
    """The event comes again in `delay` seconds."""

    attempts: int
    delay: float


class Schedule(Generic[T]):
    """The events in hand. Every job that `next` returns must be given back, by `done`,
    `failed` or `later`, before the next event of its key comes out."""

    def __init__(self, *, max_attempts: int, backoff: Backoff = REHANDLE) -> None:
        self._max_attempts = max_attempts
        self._backoff = backoff
        self._waiting: dict[str, deque[Job[T]]] = {}
        self._ready: list[tuple[float, int, str]] = []  # (time, tie-breaker, key): one per key
        self._turn = 0
        self._failures: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[Job[T]]:
        for jobs in self._waiting.values():
            yield from jobs

    def arrived(self, job: Job[T], now: float) -> None:
        """Take in a delivered event."""
        jobs = self._waiting.get(job.key)
        if jobs is None:
            self._waiting[job.key] = deque([job])
            self._enqueue(job.key, now)
        else:
            jobs.append(job)

    def next(self, now: float) -> Job[T] | None:
        """Return the event that is due, the one that is due longest first; None: none is."""
        if not self._ready or self._ready[0][0] > now:
            return None
        return self._waiting[heappop(self._ready)[2]][0]

    def due(self, now: float) -> float | None:
        """Seconds until `next` has something; None: not before something arrives."""
        return max(0.0, self._ready[0][0] - now) if self._ready else None

    def done(self, job: Job[T], now: float) -> None:
        """The event is dealt with: the next one of its key may come."""
        self._failures.pop(job.identity, None)
        jobs = self._waiting[job.key]
        jobs.popleft()
        if jobs:
            self._enqueue(job.key, now)
        else:
            del self._waiting[job.key]

    def failed(self, job: Job[T], now: float, chance: float) -> TryAgain | GiveUp:
        """The handler failed on the event. After `GiveUp`, the job is still in hand."""
        attempts = self._failures.get(job.identity, 0) + 1
        self._failures[job.identity] = attempts
        if attempts >= self._max_attempts:
            return GiveUp(attempts)
        delay = self._backoff.delay(attempts, chance)
        self._enqueue(job.key, now + delay)
        return TryAgain(attempts, delay)

    def later(self, job: Job[T], now: float, delay: float) -> None:
        """Something else failed, not the handler: the same event again, without counting."""
        self._enqueue(job.key, now + delay)

    def forget(self) -> None:
        """The connection is gone, and the deliveries with it; they will come again.

        Their failures stay counted.
        """
        here = {job.identity for job in self}
        self._failures = {event: n for event, n in self._failures.items() if event in here}
        self._waiting.clear()
        self._ready.clear()

    def _enqueue(self, key: str, at: float) -> None:
        self._turn += 1
        heappush(self._ready, (at, self._turn, key))
