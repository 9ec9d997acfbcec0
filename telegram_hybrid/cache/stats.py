"""Counters of a cache: what it answered, refused and could not do."""

from __future__ import annotations

from threading import Lock

import attrs


@attrs.frozen(slots=True, kw_only=True)
class CacheStats:
    """Counts since the cache was made; keys, unless said otherwise.

    `hits` were answered by Redis, `misses` were not. `fills` were stored under their lease,
    `fills_refused` lost it to an invalidation, expiry or eviction. `discarded` were values of
    ours no longer: undecodable, foreign, or of another Redis type. `invalidations` were applied.
    `errors` counts requests (not keys) that Redis failed.
    """

    hits: int = 0
    misses: int = 0
    fills: int = 0
    fills_refused: int = 0
    discarded: int = 0
    invalidations: int = 0
    errors: int = 0


class Tally:
    """Counts from several threads, read as `CacheStats`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stats = dict.fromkeys((field.name for field in attrs.fields(CacheStats)), 0)

    def add(self, **counts: int) -> None:
        """Add to the named counters."""
        with self._lock:
            for name, count in counts.items():
                self._stats[name] += count

    def read(self) -> CacheStats:
        """Return the counts of this moment."""
        with self._lock:
            return CacheStats(**self._stats)
