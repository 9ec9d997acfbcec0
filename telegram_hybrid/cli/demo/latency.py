"""Latencies: samples in seconds, told as percentiles in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

import attrs

_PERCENTILES = (50, 95, 99)


@attrs.frozen(slots=True)
class Percentiles:
    """Milliseconds that 50, 95 and 99 of 100 samples stay within."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Percentiles | None:
        """Return the percentiles (nearest rank) of samples in seconds, or None of none."""
        if not samples:
            return None
        ordered = sorted(samples)
        # Nearest rank: the smallest sample that at least p percent do not exceed.
        ranks = (-(-percent * len(ordered) // 100) for percent in _PERCENTILES)
        return cls(*(round(ordered[rank - 1] * 1000, 3) for rank in ranks))


@attrs.define(slots=True)
class Latencies:
    """Samples in seconds; the fields are the figures of the report."""

    save: list[float] = attrs.field(factory=list)
    get_hit: list[float] = attrs.field(factory=list)
    get_miss: list[float] = attrs.field(factory=list)
    latest: list[float] = attrs.field(factory=list)
    seen: list[float] = attrs.field(factory=list)
    end_to_end: list[float] = attrs.field(factory=list)

    def percentiles(self) -> dict[str, Percentiles | None]:
        """Return each figure by its name."""
        return {name: Percentiles.of(getattr(self, name)) for name in self.names()}

    def counts(self) -> dict[str, int]:
        """Return how many samples each figure has."""
        return {name: len(getattr(self, name)) for name in self.names()}

    @classmethod
    def names(cls) -> list[str]:
        """Return the figures' names."""
        return [field.name for field in attrs.fields(cls)]


@contextmanager
def timed(samples: list[float]) -> Iterator[None]:
    """Append the seconds of the block; nothing if it raises."""
    started = perf_counter()
    yield
    samples.append(perf_counter() - started)
