"""Gauges: what happened of late, on a clock that the test turns."""

import pytest

from telegram_hybrid.delivery.gauges import Rate, Times


def test_the_rate_is_that_of_the_last_ten_seconds():
    rate = Rate()
    rate.add(500, 0.0)
    rate.add(100, 6.0)
    assert rate.per_second(9.0) == 60.0
    assert rate.per_second(11.0) == 10.0
    assert rate.per_second(16.0) == 0.0
    rate.add(10, 30.0)
    assert rate.per_second(30.0) == 1.0


@pytest.mark.parametrize(("share", "expected"), [(0.5, 0.051), (0.99, 0.1), (0.0, 0.001)])
def test_a_quantile_is_the_time_within_which_that_share_came(share, expected):
    times = Times()
    times.add(n / 1000 for n in range(100, 0, -1))
    assert times.quantile(share) == expected


def test_only_the_last_thousand_times_count_and_none_is_no_figure():
    times = Times()
    assert times.quantile(0.5) is None
    times.add([9.0] * 10)
    times.add([0.1] * 1000)
    assert times.quantile(0.99) == 0.1
