"""Promise P6: what a window answers equals what the database would, or it answers nothing.

Broken on purpose and seen to fail: `complete` taken for granted, and `lo - 1` loosened to `lo - 2`.
"""

import pytest
from cachelab.rows import message
from hypothesis import given
from hypothesis import strategies as st

from telegram_hybrid.cache import Window, after_from, latest_from

IDS = st.sets(st.integers(0, 30), max_size=20)


def rows(ids: set[int], *, newest_first: bool) -> list:
    return [message(i, i + 1) for i in sorted(ids, reverse=newest_first)]


@given(ids=IDS, size=st.integers(1, 12), limit=st.integers(0, 15))
def test_latest_is_what_the_database_would_say_or_nothing(
    ids: set[int], size: int, limit: int
) -> None:
    every = rows(ids, newest_first=True)
    answer = latest_from(Window.of(every[:size], size, 99), limit)
    if limit <= size or len(every) < size:
        assert answer == every[:limit]
    else:
        assert answer is None


@given(ids=IDS, size=st.integers(1, 12), above=st.integers(-1, 31), limit=st.integers(0, 15))
def test_after_is_what_the_database_would_say_or_nothing(
    ids: set[int], size: int, above: int, limit: int
) -> None:
    every = rows(ids, newest_first=False)
    answer = after_from(Window.of(every[::-1][:size], size, 99), above, limit)
    if answer is None:
        assert len(every) >= size
        assert above < every[-size].message_id - 1
    else:
        assert answer == [m for m in every if m.message_id > above][:limit]


def test_a_window_states_its_coverage() -> None:
    full = Window.of([message(9, 4), message(5, 8)], 2, 8)
    assert (full.lo, full.hi, full.version, full.complete) == (5, 9, 8, False)
    assert after_from(full, 4, 10) == [message(5, 8), message(9, 4)]
    assert after_from(full, 3, 10) is None
    empty = Window.of([], 2, 0)
    assert (empty.lo, empty.hi, empty.version, empty.complete) == (0, 0, 0, True)


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_an_empty_channel_is_known_to_be_empty(limit: int) -> None:
    assert latest_from(Window.of([], 3, 0), limit) == []
    assert after_from(Window.of([], 3, 0), 0, limit) == []
