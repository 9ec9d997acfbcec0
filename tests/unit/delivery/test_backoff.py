"""Backoff: delays grow, end at a bound, and jitter only shortens them."""

from hypothesis import given
from hypothesis import strategies as st

from telegram_hybrid.delivery.backoff import Backoff


def test_delays_double_up_to_the_most():
    backoff = Backoff(first=0.5, most=3.0)
    assert [backoff.delay(attempt, 0.0) for attempt in (1, 2, 3, 4, 5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_jitter_takes_off_at_most_its_share(attempt, chance):
    backoff = Backoff(first=0.1, most=10.0, jitter=0.5)
    whole = backoff.delay(attempt, 0.0)
    assert whole / 2 <= backoff.delay(attempt, chance) <= whole <= 10.0
