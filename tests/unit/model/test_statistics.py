"""Statistics as values: percentiles of bins, rates, and rows for a table."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from math import ceil, floor, log
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telegram_hybrid import Count, Latency, MessageType, Series, Source, Statistics, Status
from telegram_hybrid.errors import MissingExtra
from telegram_hybrid.model.statistics import PERCENTILE_ERROR, Bin
from telegram_hybrid.repositories.statistics import HOUR, whole

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def bins(latencies: list[int]) -> list[Bin]:
    """Latencies in microseconds, in the bins of the database."""
    found: dict[int, list[int]] = {}
    for each in latencies:
        found.setdefault(floor(log(max(each, 1000) / 1000) / log(1.1)), []).append(each)
    return [Bin(len(alike), min(alike), max(alike)) for alike in found.values()]


@given(st.lists(st.integers(0, 31_536_000_000_000), min_size=1, max_size=300))
def test_percentiles_are_within_their_error_of_the_message_at_that_rank(
    latencies: list[int],
) -> None:
    # Broken on purpose: with floor for ceil in the rank, and with bins of 1.2^n.
    found = Latency.of(bins(latencies), sum(latencies))
    assert found is not None
    ordered = sorted(latencies)
    assert found.least == ordered[0] / 1e6
    assert found.greatest == ordered[-1] / 1e6
    assert found.mean == pytest.approx(sum(ordered) / len(ordered) / 1e6)
    for percent, estimate in ((50, found.p50), (95, found.p95), (99, found.p99)):
        exact = ordered[ceil(len(ordered) * percent / 100) - 1] / 1e6
        assert abs(estimate - exact) <= (0.0006 if exact < 0.0011 else exact * PERCENTILE_ERROR)


def test_without_a_published_message_there_is_no_latency() -> None:
    assert Latency.of([], 0) is None


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2099, 1, 1)).map(lambda at: at.replace(tzinfo=UTC)),
    st.timedeltas(timedelta(0), timedelta(days=3)),
    st.sampled_from([HOUR, 24 * HOUR]),
)
def test_a_range_is_widened_by_less_than_a_step_on_each_side(
    since: datetime, length: timedelta, step: timedelta
) -> None:
    begin, end = whole(since, since + length, step)
    assert timedelta(0) <= since - begin < step
    assert timedelta(0) <= end - since - length < step
    assert (end - begin) % step == timedelta(0)
    assert (begin.minute, begin.second, begin.microsecond) == (0, 0, 0)


def statistics(*counts: tuple[Status, int]) -> Statistics:
    return Statistics(
        channel_id=-1001,
        since=NOON,
        until=NOON + HOUR,
        counts=tuple(
            Count(
                status=status,
                source=Source.BOT,
                message_type=MessageType.CHANNEL_POST,
                messages=number,
            )
            for status, number in counts
        ),
    )


def test_what_is_on_its_way_is_no_failure() -> None:
    assert statistics((Status.RECEIVED, 5), (Status.RETRYING, 1)).success_rate is None
    ended = ((Status.PUBLISHED, 2), (Status.REPROCESSED, 1), (Status.FAILED, 1))
    assert statistics(*ended, (Status.QUEUED, 7), (Status.DELETED, 9)).success_rate == 0.75


def test_every_row_of_a_frame_has_the_same_columns() -> None:
    empty, full = statistics(), statistics((Status.PUBLISHED, 2))
    full = Statistics(
        channel_id=full.channel_id,
        since=full.since,
        until=full.until,
        counts=full.counts,
        latency=Latency.of([Bin(2, 1000, 3000)], 4000),
    )
    assert empty.flat().keys() == full.flat().keys()
    assert (empty.flat()["published"], full.flat()["published"]) == (0, 2)
    assert (empty.flat()["latency_p50"], full.flat()["latency_p50"]) == (None, 0.001)


def test_a_frame_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match=r"telegram-hybrid\[notebook\]"):
        Series([]).to_frame()


def test_a_frame_has_a_line_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    # What pandas is given; the tests do not install it.
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    frame = Series([statistics((Status.PUBLISHED, 2)), statistics()]).to_frame()
    assert [line["messages"] for line in frame] == [2, 0]
    assert [line["since"] for line in frame] == [NOON, NOON]
