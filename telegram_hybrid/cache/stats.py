"""Counters of a cache: what it answered, refused and could not do."""

from __future__ import annotations

from threading import Lock
from typing import Any

import attrs


@attrs.frozen(slots=True, kw_only=True)
class CacheStats:
    """Counts since the cache was made; keys, unless said otherwise.

    `hits` were answered by Redis, `misses` were not. `fills` were stored under their lease,
    `fills_refused` lost it to an invalidation, expiry or eviction. `early` were loaded anew
    though they had not expired, `stale` were served though they may be out of date, because the
    caller allowed it. `discarded` were values of ours no longer: undecodable, foreign, or of
    another Redis type. `waits` counts reads that waited for another one's load.

    `invalidations` counts what was applied for writers of this process, one for each channel of a
    transaction; `repaired` those that were applied in another's place, or again: by a relay, or
    after Redis could not be reached or another server became its master. `errors` counts requests
    (not keys) that Redis failed; `skipped` those that it was not sent, as it had failed before.

    `breaker` is "closed", "open" or "half-open". While Redis is not `trusted`, reads go to the
    database: it does not answer, or it lacks invalidations that are being repeated.
    """

    hits: int = 0
    misses: int = 0
    fills: int = 0
    fills_refused: int = 0
    early: int = 0
    stale: int = 0
    discarded: int = 0
    waits: int = 0
    invalidations: int = 0
    repaired: int = 0
    errors: int = 0
    skipped: int = 0
    breaker: str = "closed"
    trusted: bool = True


class Tally:
    """Counts from several threads, read as `CacheStats`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stats = {
            field.name: 0 for field in attrs.fields(CacheStats) if type(field.default) is int
        }

    def begin(self) -> None:
        """Have a lock that no thread of a parent process holds."""
        self._lock = Lock()

    def answered(self, hits: int, misses: int) -> None:
        """Add to `hits` and `misses`."""
        with self._lock:
            self._stats["hits"] += hits
            self._stats["misses"] += misses

    def add(self, **counts: int) -> None:
        """Add to the named counters."""
        with self._lock:
            for name, count in counts.items():
                self._stats[name] += count

    def read(self, **more: Any) -> CacheStats:
        """Return the counts of this moment, and what else is known."""
        with self._lock:
            return CacheStats(**(self._stats | more))
