"""The collector for Prometheus, beside the values that it reads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from telegram_hybrid.cache.stats import CacheStats
from telegram_hybrid.delivery.gauges import (
    ConsumerCounters,
    ConsumerGauges,
    RelayCounters,
    RelayGauges,
)
from telegram_hybrid.errors import DatabaseUnavailable
from telegram_hybrid.observe.prometheus import Collector


def worker(name: str, counters: Any, gauges: Any) -> Any:
    return SimpleNamespace(name=f"telegram_hybrid.{name}", counters=counters, gauges=gauges)


def relay(published: int, rate: float, confirm_p99: float | None, backlog: int = 7) -> Any:
    gauges = RelayGauges(
        backlog=backlog,
        oldest=1.5,
        frozen=1,
        dead_letters=2,
        shards=8,
        waiting=3,
        unconfirmed=4,
        rate=rate,
        confirm_p50=None,
        confirm_p99=confirm_p99,
    )
    return worker("relay", RelayCounters(published=published), lambda: gauges)


def consumer(queue: str, consumed: int) -> Any:
    gauges = ConsumerGauges(
        in_hand=1, rate=2.0, lag_p50=0.01, lag_p99=0.05, handler_p50=None, handler_p99=None
    )
    return worker(f"consumer.{queue}", ConsumerCounters(consumed=consumed), lambda: gauges)


def samples(stats: CacheStats, *workers: Any) -> dict[str, float]:
    """What Prometheus would read."""
    registry = CollectorRegistry()
    registry.register(
        Collector(SimpleNamespace(cache=SimpleNamespace(stats=lambda: stats), workers=workers))
    )
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            name = sample.name.removeprefix("telegram_hybrid_")
            found[f"{name}{{{labels}}}" if labels else name] = sample.value
    return found


def test_every_counter_of_the_cache_is_told() -> None:
    found = samples(CacheStats(hits=3, repaired=1, breaker="open", trusted=False))

    assert found["cache_hits_total"] == 3
    assert found["cache_repaired_total"] == 1
    assert found["cache_breaker{state=open}"] == 1
    assert found["cache_breaker{state=closed}"] == 0
    assert found["cache_trusted"] == 0
    assert len(found) == 12 + 3 + 1


def test_relays_of_one_process_are_one() -> None:
    # Broken on purpose: with every gauge added up the backlog was 14.
    found = samples(CacheStats(), relay(10, 5.0, 0.2), relay(20, 6.0, 0.4))

    assert found["relay_published_total"] == 30
    assert (found["relay_rate"], found["relay_shards"]) == (11.0, 16)
    assert (found["relay_backlog"], found["relay_oldest_seconds"]) == (7, 1.5)
    assert found["relay_confirm_seconds{quantile=0.99}"] == 0.4
    assert "relay_confirm_seconds{quantile=0.5}" not in found


def test_consumers_are_told_apart_by_their_queues() -> None:
    found = samples(CacheStats(), consumer("signals", 4), consumer("archive.all", 5))

    assert found["consumer_consumed_total{queue=signals}"] == 4
    assert found["consumer_consumed_total{queue=archive.all}"] == 5
    assert found["consumer_lag_seconds{quantile=0.99,queue=signals}"] == 0.05


def test_without_the_database_the_rest_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def gone() -> RelayGauges:
        raise DatabaseUnavailable("127.0.0.1:1: refused")

    found = samples(CacheStats(hits=3), worker("relay", RelayCounters(published=9), gone))

    assert (found["relay_published_total"], found["cache_hits_total"]) == (9, 3)
    assert "relay_backlog" not in found
    assert "127.0.0.1:1: refused" in caplog.text
