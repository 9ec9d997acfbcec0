"""Gauges: what relays and consumers have done, and how they stand at this moment; pure.

Counters only grow, from when their worker was made. Gauges may be asked from any thread. Both are
plain values, as `hybrid.cache.stats()` and `hybrid.health()` are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import attrs

#: Seconds over which a rate is taken, and how many times a quantile is of.
_RATE_OVER, _TIMES = 10.0, 1000


@attrs.frozen(slots=True)
class RelayCounters:
    """What a relay did since it was made.

    `published` events were confirmed and deleted; `postponed` counts refusals that are tried
    again; `dead` events were given up; `failures` counts lost servers.
    """

    published: int = 0
    postponed: int = 0
    dead: int = 0
    failures: int = 0


@attrs.frozen(slots=True, kw_only=True)
class RelayGauges:
    """How a relay stands. `backlog` to `dead_letters` are of all shards, the rest is its own.

    `backlog` events wait, the oldest for `oldest` seconds. `frozen` channels wait for the next
    attempt of an event that was refused, or for somebody's decision. `dead_letters` are open.

    It holds `shards` of the outbox; `waiting` events were read ahead, `unconfirmed` are on the
    wire. `rate` is events published per second over the last ten seconds; `confirm_p50` and
    `confirm_p99` are seconds from a publish to its confirm, of the last thousand. None: there is
    nothing to measure.
    """

    backlog: int
    oldest: float | None
    frozen: int
    dead_letters: int
    shards: int
    waiting: int
    unconfirmed: int
    rate: float
    confirm_p50: float | None
    confirm_p99: float | None


@attrs.frozen(slots=True)
class ConsumerCounters:
    """What a consumer did since it was made.

    `consumed` events were handled and committed here; `duplicates` were so before; `retried`
    counts failures of the handler that are tried again; `dead` events were given up; `failures`
    counts what a lost server interrupted.
    """

    consumed: int = 0
    duplicates: int = 0
    retried: int = 0
    dead: int = 0
    failures: int = 0


@attrs.frozen(slots=True, kw_only=True)
class ConsumerGauges:
    """How a consumer stands; `hybrid.health()` tells how many events wait in its queue.

    `in_hand` events were handed to it and are not acknowledged. `rate` is events handled per
    second over the last ten seconds. `lag_p50` and `lag_p99` are seconds from the writer's event
    (by the database's clock) to the end of its handling (by this machine's); `handler_p50` and
    `handler_p99` are seconds in the handler. Each of the last thousand; None: there was none.
    """

    in_hand: int
    rate: float
    lag_p50: float | None
    lag_p99: float | None
    handler_p50: float | None
    handler_p99: float | None


class Rate:
    """How many of late, by the caller's monotonic clock. One thread adds, any may ask."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque()

    def add(self, count: int, now: float) -> None:
        """Note so many."""
        self._counts.append((now, count))
        while self._counts[0][0] <= now - _RATE_OVER:
            self._counts.popleft()

    def per_second(self, now: float) -> float:
        """Over the last ten seconds."""
        since = now - _RATE_OVER
        return sum(count for at, count in tuple(self._counts) if at > since) / _RATE_OVER


class Times:
    """The last thousand durations in seconds. One thread adds, any may ask."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_TIMES)

    def add(self, seconds: Iterable[float]) -> None:
        """Note some."""
        self._seconds.extend(seconds)

    def quantile(self, share: float) -> float | None:
        """Seconds within which this share (0 to 1) was done; None if there were none."""
        ordered = sorted(self._seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
