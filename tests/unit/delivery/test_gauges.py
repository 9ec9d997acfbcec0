"""Gauges: what happened of late, on a clock that the test turns."""

import pytest

from telegram_hybrid.delivery.gauges import Recent


def test_the_rate_is_that_of_the_last_ten_seconds():
    recent = Recent()
    recent.published(500, 0.0)
    recent.published(100, 6.0)
    assert recent.rate(9.0) == 60.0
    assert recent.rate(11.0) == 10.0
    assert recent.rate(16.0) == 0.0


@pytest.mark.parametrize(("share", "expected"), [(0.5, 0.051), (0.99, 0.1), (0.0, 0.001)])
def test_a_quantile_is_the_time_within_which_that_share_came(share, expected):
    recent = Recent()
    recent.confirmed(n / 1000 for n in range(100, 0, -1))
    assert recent.quantile(share) == expected


def test_only_the_last_thousand_confirms_count_and_none_is_no_figure():
    recent = Recent()
    assert recent.quantile(0.5) is None
    recent.confirmed([9.0] * 10)
    recent.confirmed([0.1] * 1000)
    assert recent.quantile(0.99) == 0.1
