"""Gauges: what a relay has done, and how it stands at this moment; pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import attrs

#: Seconds over which the rate is taken, and how many confirms the quantiles.
_RATE_OVER, _CONFIRMS = 10.0, 1000


@attrs.frozen(slots=True)
class RelayCounters:
    """What a relay did since it was made. `failures` counts lost servers."""

    published: int = 0
    postponed: int = 0
    dead: int = 0
    failures: int = 0


@attrs.frozen(slots=True, kw_only=True)
class RelayGauges:
    """How a relay stands. `backlog` and `oldest` are of all shards, the rest is its own.

    `oldest` is the age of the oldest event in seconds, `rate` events published per second over
    the last ten seconds; `confirm_p50` and `confirm_p99` are seconds from a publish to its
    confirm, of the last thousand. None: there is nothing to measure.
    """

    backlog: int
    oldest: float | None
    shards: int
    waiting: int
    unconfirmed: int
    rate: float
    confirm_p50: float | None
    confirm_p99: float | None


class Recent:
    """Rates and times of late; `now` is the caller's monotonic clock."""

    def __init__(self) -> None:
        self._published: deque[tuple[float, int]] = deque()
        self._seconds: deque[float] = deque(maxlen=_CONFIRMS)

    def published(self, count: int, now: float) -> None:
        """Note that so many events were published."""
        self._published.append((now, count))
        self._forget(now)

    def confirmed(self, seconds: Iterable[float]) -> None:
        """Note how long confirms took."""
        self._seconds.extend(seconds)

    def rate(self, now: float) -> float:
        """Events per second."""
        self._forget(now)
        return sum(count for _, count in self._published) / _RATE_OVER

    def quantile(self, share: float) -> float | None:
        """Seconds within which this share (0 to 1) of the confirms came."""
        ordered = sorted(self._seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None

    def _forget(self, now: float) -> None:
        while self._published and self._published[0][0] <= now - _RATE_OVER:
            self._published.popleft()
