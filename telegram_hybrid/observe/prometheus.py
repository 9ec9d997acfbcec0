"""Prometheus: all counters and gauges of a process, for a registry of prometheus-client.

Needs the extra `prometheus`. Metrics are named after the values that they come from:
`CacheStats.hits` is telegram_hybrid_cache_hits_total, `RelayGauges.confirm_p99` is
telegram_hybrid_relay_confirm_seconds{quantile="0.99"}, and `ConsumerCounters.consumed` is
telegram_hybrid_consumer_consumed_total{queue="..."}.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import attrs
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector as Registered

from telegram_hybrid.errors import HybridError

_log = logging.getLogger("telegram_hybrid.observe")
_NAME = "telegram_hybrid"
_BREAKER = ("closed", "half-open", "open")
_QUANTILES = {"p50": "0.5", "p99": "0.99"}
#: Gauges of one worker alone; the others are the same whichever worker is asked.
_OWN = frozenset({"shards", "waiting", "unconfirmed", "in_hand", "rate"})


class Observed(Protocol):
    """What is read of a `Hybrid`."""

    @property
    def cache(self) -> Any:
        """Has `stats()`."""

    @property
    def workers(self) -> Iterable[Any]:
        """Each has a `name`, `counters` and `gauges()`."""


class Collector(Registered):
    """The cache, relays and consumers of one `Hybrid`, read whenever Prometheus asks.

    `prometheus_client.REGISTRY.register(Collector(hybrid))`. Relays of one process count as one,
    as do consumers of one queue: their work is added up, of their times the longest is told. A
    registry takes one `Hybrid`.
    While the database cannot be asked, the relay's gauges are missing, and nothing is raised.
    """

    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def collect(self) -> Iterable[Metric]:
        """Return every metric of this moment."""
        families = _Families()
        stats = attrs.asdict(self._observed.cache.stats())
        breaker, trusted = stats.pop("breaker"), stats.pop("trusted")
        for state in _BREAKER:
            families.gauge("cache_breaker", {"state": state}, float(state == breaker))
        families.gauge("cache_trusted", {}, float(trusted))
        for name, count in stats.items():
            families.counter(f"cache_{name}", {}, count)
        by_name: dict[str, list[Any]] = {}
        for worker in self._observed.workers:
            by_name.setdefault(worker.name, []).append(worker)
        for name, workers in by_name.items():
            kind, _, queue = name.removeprefix(f"{_NAME}.").partition(".")
            _add_workers(families, kind, {"queue": queue} if queue else {}, workers)
        return families.all.values()


class _Families:
    """Metrics by name, each with the samples of all its labels."""

    def __init__(self) -> None:
        self.all: dict[str, Metric] = {}

    def counter(self, name: str, labels: dict[str, str], value: float) -> None:
        """Add one sample."""
        self._add(CounterMetricFamily, name, labels, value)

    def gauge(self, name: str, labels: dict[str, str], value: float) -> None:
        """Add one sample."""
        self._add(GaugeMetricFamily, name, labels, value)

    def _add(self, kind: Any, name: str, labels: dict[str, str], value: float) -> None:
        if name not in self.all:
            told = f"See {name.partition('_')[0]} in telegram_hybrid's documentation."
            self.all[name] = kind(f"{_NAME}_{name}", told, labels=list(labels))
        self.all[name].add_metric(list(labels.values()), value)  # type: ignore[attr-defined]


def _add_workers(
    families: _Families, kind: str, labels: dict[str, str], workers: Sequence[Any]
) -> None:
    for name, counts in _by_field([worker.counters for worker in workers]).items():
        families.counter(f"{kind}_{name}", labels, sum(counts))
    try:
        gauges = _by_field([worker.gauges() for worker in workers])
    except HybridError as error:
        _log.warning("no gauges of the %s: %s", kind, error)
        return
    for name, values in gauges.items():
        if not values:
            continue
        what, _, share = name.rpartition("_")
        if share in _QUANTILES:
            told = {**labels, "quantile": _QUANTILES[share]}
            families.gauge(f"{kind}_{what}_seconds", told, max(values))
        elif name == "oldest":
            families.gauge(f"{kind}_oldest_seconds", labels, max(values))
        else:
            families.gauge(f"{kind}_{name}", labels, (sum if name in _OWN else max)(values))


def _by_field(told: Sequence[Any]) -> dict[str, list[float]]:
    """The values of each field, without those that are None."""
    rows = [attrs.asdict(each) for each in told]
    return {name: [row[name] for row in rows if row[name] is not None] for name in rows[0]}
