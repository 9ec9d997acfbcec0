"""Schedule: which delivered events are handled next; pure, with the clock passed in.

Events of one key (a channel's routing key) come out in the order of their arrival. While an event
waits for its next attempt, the later ones of its key wait behind it; other keys go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import Generic, TypeVar

import attrs

from telegram_hybrid.delivery.backoff import REHANDLE, Backoff

T = TypeVar("T")


@attrs.frozen(slots=True)
class Job(Generic[T]):
    """One delivered event: its `key`, its `identity` over redeliveries, and the delivery.

    An event that is `alone` shares its transaction with no other.
    """

    key: str
    identity: str
    delivery: T
    alone: bool = False


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
    """The events in hand.

    Whatever `take` returns must be given back, by `done`, `failed`, `apart` or `later`, before
    anything else of the same keys comes out.
    """

    def __init__(self, *, max_attempts: int, backoff: Backoff = REHANDLE) -> None:
        self._max_attempts = max_attempts
        self._backoff = backoff
        self._waiting: dict[str, deque[Job[T]]] = {}
        self._ready: list[tuple[float, int, str]] = []  # (time, tie-breaker, key): one per key
        self._turn = 0
        #: Events that failed, or were in a batch that did; how often each failed by itself.
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

    def take(self, now: float, limit: int = 1) -> list[Job[T]]:
        """Return up to `limit` events that are due, those that are due longest first.

        One that is alone, or failed before, comes alone.
        """
        taken: list[Job[T]] = []
        while len(taken) < limit and self._ready and self._ready[0][0] <= now:
            jobs = self._waiting[self._ready[0][2]]
            if self._is_alone(jobs[0]):
                if not taken:
                    heappop(self._ready)
                    taken.append(jobs[0])
                break
            heappop(self._ready)
            for job in jobs:
                if len(taken) == limit or self._is_alone(job):
                    break
                taken.append(job)
        return taken

    def due(self, now: float) -> float | None:
        """Seconds until `take` has something; None: not before something arrives."""
        return max(0.0, self._ready[0][0] - now) if self._ready else None

    def done(self, taken: Sequence[Job[T]], now: float) -> None:
        """These are dealt with: the next ones of their keys may come."""
        for job in taken:
            self._failures.pop(job.identity, None)
            self._waiting[job.key].popleft()
        for key in dict.fromkeys(job.key for job in taken):
            if self._waiting[key]:
                self._enqueue(key, now)
            else:
                del self._waiting[key]

    def failed(self, job: Job[T], now: float, chance: float) -> TryAgain | GiveUp:
        """The handler failed on an event that was taken alone.

        After `GiveUp`, the job is still in hand.
        """
        attempts = self._failures.get(job.identity, 0) + 1
        self._failures[job.identity] = attempts
        if attempts >= self._max_attempts:
            return GiveUp(attempts)
        delay = self._backoff.delay(attempts, chance)
        self._enqueue(job.key, now + delay)
        return TryAgain(attempts, delay)

    def apart(self, taken: Sequence[Job[T]], now: float) -> None:
        """The handler failed on one of several: each comes again alone, at once."""
        for job in taken:
            self._failures.setdefault(job.identity, 0)
        self.later(taken, now, 0.0)

    def later(self, taken: Sequence[Job[T]], now: float, delay: float) -> None:
        """Something else failed, not the handler: the same again, without counting."""
        for key in dict.fromkeys(job.key for job in taken):
            self._enqueue(key, now + delay)

    def forget(self) -> None:
        """The connection is gone, and the deliveries with it; they will come again.

        Their failures stay counted.
        """
        here = {job.identity for job in self}
        self._failures = {event: n for event, n in self._failures.items() if event in here}
        self._waiting.clear()
        self._ready.clear()

    def _is_alone(self, job: Job[T]) -> bool:
        return job.alone or job.identity in self._failures

    def _enqueue(self, key: str, at: float) -> None:
        self._turn += 1
        heappush(self._ready, (at, self._turn, key))
