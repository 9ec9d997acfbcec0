"""Breaker: when Redis is not asked any more, and when it is tried again. Sans I/O.

    closed     -> open        after enough failures with no good reply between them
    open       -> half-open   when a pause is over, to probe
    half-open  -> closed      if the probe was answered in time
    half-open  -> open        if not; the next pause is twice as long

Unlike the classic breaker (Nygard, "Release It!"), the half-open one lets nobody through: probes
are made by a thread in the background, so that no reader pays for one.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from random import random

#: Seconds after which a reply is slow. It is used, and counts as a failure.
SLOW = 0.05
#: Failures in a row that open the breaker; a timeout counts for half of them.
FAILURES = 4
#: Seconds in which several slow replies count once: threads that wait for a processor make a
#: swift Redis look slow for a moment, and it must not lose its readers to a rush of them.
SLOW_ONCE_IN = 0.25
#: Seconds before the first probe, and the most between two.
PAUSE_FIRST, PAUSE_MOST = 0.1, 1.0
#: Seconds for which the breaker must have been closed for pauses to begin anew.
CALM = 10.0


class BreakerState(StrEnum):
    """Closed: Redis is asked. Open: it is not. Half-open: it is being probed."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """The state; the caller tells what happened and when, and serializes its calls.

    Times are seconds of one monotonic clock. `chance` is uniform in [0, 1): pauses are between
    half and all of what they grew to, so that many processes do not probe in step.
    """

    def __init__(self, chance: Callable[[], float] = random) -> None:
        self.state = BreakerState.CLOSED
        self._chance = chance
        self._failures = 0
        self._slow_at = float("-inf")
        self._closed_at = float("-inf")
        self._pause = PAUSE_FIRST
        self._probe_at = 0.0

    @property
    def is_clean(self) -> bool:
        """Whether a swift reply would change nothing."""
        return self._failures == 0

    def answered(self, now: float, seconds: float) -> None:
        """Redis replied, after `seconds`."""
        if self.state is not BreakerState.CLOSED:
            return
        if seconds <= SLOW:
            self._failures = 0
        elif now - self._slow_at >= SLOW_ONCE_IN:
            self._slow_at = now
            self._failed(now, 1)

    def failed(self, now: float, *, timeout: bool) -> None:
        """Redis did not reply: the connection failed or, with `timeout`, nothing came in time."""
        if self.state is BreakerState.CLOSED:
            self._failed(now, FAILURES // 2 if timeout else 1)

    def wait(self, now: float) -> float:
        """Seconds until the next probe is due; 0 unless open."""
        return max(0.0, self._probe_at - now) if self.state is BreakerState.OPEN else 0.0

    def probe(self) -> None:
        """A probe begins."""
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.HALF_OPEN

    def probed(self, now: float, seconds: float | None) -> None:
        """A probe was answered after `seconds`, or not at all (None)."""
        if self.state is not BreakerState.HALF_OPEN:
            return
        if seconds is not None and seconds <= SLOW:
            self.state = BreakerState.CLOSED
            self._failures = 0
            self._closed_at = now
        else:
            self._open(now)

    def _failed(self, now: float, count: int) -> None:
        self._failures += count
        if self._failures >= FAILURES:
            if now - self._closed_at >= CALM:
                self._pause = PAUSE_FIRST
            self._open(now)

    def _open(self, now: float) -> None:
        self.state = BreakerState.OPEN
        self._probe_at = now + self._pause * (0.5 + self._chance() / 2)
        self._pause = min(PAUSE_MOST, self._pause * 2)
