"""Promise P6: what a window answers equals what the database would, or it answers nothing.

Broken on purpose and seen to fail: `complete` taken for granted, `lo - 1` loosened to `lo - 2`, a
page that is missing passed over, and no window, or no page that could be loaded, taken for empty.
"""

from itertools import product

import pytest
from cachelab.rows import CHANNEL, message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telegram_hybrid.cache import EVERY_ID, Window, after_from, latest_from, pages_after
from telegram_hybrid.cache import window as proofs
from telegram_hybrid.cache.window import after_from_cache
from telegram_hybrid.schema.redis import values
from telegram_hybrid.schema.redis.values import Life, Run

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


#: A page in these tests: so few ids that every case can be gone through.
PAGE = 4


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (values, proofs):
        monkeypatch.setattr(module, "PAGE", PAGE)


def opened(found: Window) -> Run:
    return Run(values.encode_window(found, Life(2e9, 0.0)), CHANNEL)


@pytest.mark.usefixtures("small_pages")
@given(
    ids=st.sets(st.integers(0, 30), max_size=31),
    size=st.integers(1, 6) | st.none(),
    cached=st.sets(st.integers(0, 8)),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_follows_is_what_the_database_would_say_as_far_as_it_is_said(
    ids: set[int], size: int | None, cached: set[int]
) -> None:
    """Whatever the cache has of a window (None: nothing) and of pages."""
    every = rows(ids, newest_first=True)
    head = Window.of(every[:size], size, 99) if size else None
    pages = {
        number: Window.page(number, [row for row in every if row.message_id // PAGE == number], 99)
        for number in cached
    }
    for above, limit in product(range(-1, 32), range(10)):
        numbers = pages_after(above, limit)
        whole = {number: pages.get(number) for number in numbers}
        parts = {n: page and opened(page) for n, page in whole.items()}
        answer = after_from_cache(head and opened(head), parts, above, limit)
        assert answer == after_from_cache(head, whole, above, limit)
        if answer is None:
            lacking = [n for n in numbers if n not in cached and n < max(ids, default=0) // PAGE]
            assert head is None or lacking
            continue
        found, covered = answer
        following = [row for row in reversed(every) if above < row.message_id]
        assert len(found) <= limit
        assert found == following[: len(found)]
        if len(found) < limit:
            assert found == [row for row in following if row.message_id <= covered]
            assert head is not None or covered == EVERY_ID or whole, "else the window is loaded"


@pytest.mark.usefixtures("small_pages")
def test_a_page_answers_without_the_window_and_the_window_without_a_page() -> None:
    every = [message(each) for each in range(11, -1, -1)]
    page = Window.page(1, every[4:8], 9)
    head = Window.of(every[:3], 3, 9)
    assert after_from_cache(None, {1: page}, 3, 2) == ([message(4), message(5)], 5)
    assert after_from_cache(head, {2: None}, 8, 3) == (every[2::-1], EVERY_ID)
    assert after_from_cache(None, {1: page, 2: None}, 3, 5) is None
    # Of page 2, which the newest message is in, nothing more will be cached.
    assert after_from_cache(head, {1: page, 2: None}, 3, 5) == (every[7:3:-1], 7)
    assert after_from_cache(head, {1: None, 2: None}, 3, 5) is None


@pytest.mark.usefixtures("small_pages")
def test_no_more_pages_are_asked_for_than_what_is_wanted_may_take() -> None:
    assert list(pages_after(-1, 1)) == [0]
    assert list(pages_after(-1, 4)) == [0]
    assert list(pages_after(-1, 5)) == [0, 1]
    assert list(pages_after(3, 4)) == [1]
    assert list(pages_after(4, 4)) == [1, 2]
    assert len(pages_after(0, 10**6)) == 16, "the next are asked for when these are there"
