"""The Lua scripts and their model: a window is patched by the write that changes it, or it goes."""

from collections.abc import Sequence

import pytest
import redis
from cachelab.redis_model import RedisModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import (
    CHANNEL,
    HELD,
    HUGE,
    KEYS,
    TOMBSTONE,
    TOP,
    WINDOW,
    RealRedis,
    Store,
    coverage,
    mark,
    message,
    patch,
    put_window,
    stored_window,
    window,
)

from telegram_hybrid.model import Message
from telegram_hybrid.schema.redis import values
from telegram_hybrid.schema.redis.values import Window


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(message(11, 6), ([11, 9, 7, 5], 5, 11, False, 6), id="new"),
        pytest.param(message(8, 6), ([9, 8, 7, 5], 5, 9, False, 6), id="late"),
        pytest.param(message(7, 6), ([9, 7, 5], 5, 9, False, 6), id="edited"),
        pytest.param(9, ([7, 5], 5, 7, False, 6), id="newest deleted"),
        pytest.param(5, ([9, 7], 5, 9, False, 6), id="oldest deleted"),
        pytest.param(8, ([9, 7, 5], 5, 9, False, 6), id="deleted before it was there"),
        pytest.param(message(4, 6), ([9, 7, 5], 5, 9, False, 6), id="below lo"),
        pytest.param(4, ([9, 7, 5], 5, 9, False, 6), id="deleted below lo"),
        pytest.param(message(10, 6), ([10, 9, 7, 5], 5, 10, False, 6), id="more digits"),
        pytest.param(message(TOP, 6), ([TOP, 9, 7, 5], 5, TOP, False, 6), id="highest"),
    ],
)
@pytest.mark.parametrize("aside", [False, True])
def test_a_window_is_patched_where_it_is_or_where_its_writer_put_it(
    store: Store, change: Message | int, expected: tuple, aside: bool
) -> None:
    put_window(store, window(5, 9, 7, 5))
    if aside:
        mark(store, previous=5)
        assert stored_window(store) is None
        assert stored_window(store, HELD) == window(5, 9, 7, 5)
    found = patch(store, 5, 6, change)
    assert coverage(found) == expected
    if isinstance(change, Message) and change.message_id in expected[0]:
        assert {m.message_id: m.version for m in found.messages}[change.message_id] == 6
    assert store.get(HELD) is None
    assert 45 < store.seconds_left(WINDOW) <= 50, "a patch prolongs nothing"


def test_a_complete_window_takes_what_comes_below_and_stays_complete(store: Store) -> None:
    put_window(store, window(5, 9, 7, complete=True))
    assert coverage(patch(store, 5, 6, message(2, 6))) == ([9, 7, 2], 2, 9, True, 6)
    assert coverage(patch(store, 6, 7, 9, 7, 2)) == ([], 2, 9, True, 7)
    assert coverage(patch(store, 7, 8, message(3, 8))) == ([3], 3, 3, True, 8)


def test_a_window_is_cut_to_its_capacity_and_says_so(store: Store) -> None:
    put_window(store, window(5, 9, 7, 5, complete=True))
    found = patch(store, 5, 6, message(11, 6), message(12, 6), capacity=3)
    assert coverage(found) == ([12, 11, 9], 9, 12, False, 6)
    assert coverage(patch(store, 6, 7, 11, capacity=3)) == ([12, 9], 9, 12, False, 7)
    assert coverage(patch(store, 7, 8, message(8, 8), capacity=3)) == ([12, 9], 9, 12, False, 8)


@pytest.mark.parametrize(("has", "previous"), [(4, 5), (5, 4), (5, None), (4, None)])
def test_a_window_that_is_not_the_one_before_the_commit_goes(
    store: Store, has: int, previous: int | None
) -> None:
    # Seen to fail when INVALIDATE patches whatever is there.
    put_window(store, window(has, 9))
    assert patch(store, previous, 6, message(10, 6)) is None
    put_window(store, window(has, 9), HELD)
    assert patch(store, previous, 6, message(10, 6)) is None
    assert store.get(HELD) is None


@pytest.mark.parametrize("has", [6, 7, 10])
def test_a_window_that_has_the_commit_already_is_left_alone(store: Store, has: int) -> None:
    put_window(store, window(has, 9))
    store.put(KEYS.lease(WINDOW), b"someone", 10)
    assert coverage(patch(store, 5, 6, message(10, 6))) == ([9], 9, 9, False, has)
    assert store.get(KEYS.lease(WINDOW)) == b"someone"


def test_a_window_that_a_later_writer_put_aside_is_not_brought_back(store: Store) -> None:
    # Seen to fail when MARK puts aside whatever is there: the first writer's invalidation, which
    # comes late, brought the window back, and it lacked the second commit.
    put_window(store, window(5, 9))
    mark(store, previous=5)
    mark(store, previous=6)
    assert patch(store, 5, 6, message(10, 6)) is None
    put_window(store, window(5, 9))
    mark(store, previous=6)
    assert patch(store, 5, 6, message(10, 6)) is None


def test_a_window_is_still_aside_after_a_writer_that_marked_and_did_not_commit(
    store: Store,
) -> None:
    put_window(store, window(5, 9))
    mark(store, previous=5)
    mark(store, previous=5)
    assert coverage(patch(store, 5, 7, message(10, 7))) == ([10, 9], 9, 10, False, 7)


@pytest.mark.parametrize("previous", [None, 4, HUGE])
def test_a_mark_drops_a_window_that_its_write_could_not_patch(
    store: Store, previous: int | None
) -> None:
    put_window(store, window(HUGE + 1, 9))
    put_window(store, window(HUGE + 1, 9), HELD)
    mark(store, previous=previous)
    assert store.get(WINDOW) is None
    assert store.get(HELD) is None


@pytest.mark.parametrize(
    "text",
    [
        '"message_id":5',
        'a "quoted", \n broken \r\n line,',
        "\\",
        '","message_id":9}\n{"message_id":9',
        "]}",
        "\u2028 %d+ %1",
    ],
)
def test_no_text_of_a_message_misleads_a_patch(store: Store, text: str) -> None:
    hostile = message(7, 3, text=text, metadata={"message_id": 5, "a,\n": ['"message_id":1']})
    put_window(store, Window((message(9), hostile, message(5)), False, 5, 5, 9))
    expected = message(8, 6, text=text, metadata={"message_id": 7})
    found = patch(store, 5, 6, expected)
    assert list(found.messages) == [message(9), expected, hostile, message(5)]
    assert coverage(patch(store, 6, 7, 7)) == ([9, 8, 5], 5, 9, False, 7)


@pytest.mark.parametrize(
    "data",
    [
        b'{"version":5',
        b'{"version":5,"schema":2,"until":1.0,"cost":1.0,"lo":9,"hi":9,"complete":false,'
        b'"messages":[\n\n]}',
        b'{"version":5,"schema":1,"until":1.0,"cost":1.0,"lo":9,"hi":9,"complete":false,'
        b'"messages":[\n{"id":9}\n]}',
        b"garbage",
    ],
)
def test_a_window_that_cannot_be_read_is_dropped_instead_of_patched(
    store: Store, data: bytes
) -> None:
    store.put(WINDOW, data, 50)
    assert patch(store, 5, 6, message(9, 6)) is None


def test_a_window_without_expiry_is_not_ours_to_patch(store: Store) -> None:
    put_window(store, window(5, 9), seconds=None)
    assert patch(store, 5, 6, message(10, 6)) is None


IDS = st.integers(0, 12) | st.integers(TOP - 2, TOP)


@given(
    ids=st.sets(IDS, max_size=6),
    changed=st.dictionaries(IDS, st.booleans(), min_size=1, max_size=5),
    lo=IDS,
    complete=st.booleans(),
    capacity=st.integers(1, 8),
    label=st.sampled_from([4, 5, 6]),
    aside=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_scripts_patch_is_the_models(
    client: redis.Redis,
    ids: set[int],
    changed: dict[int, bool],
    lo: int,
    complete: bool,
    capacity: int,
    label: int,
    aside: bool,
) -> None:
    held = sorted((i for i in ids if complete or i >= lo), reverse=True)
    before = window(label, *held, complete=complete, lo=None if complete else lo)
    changes: Sequence[Message | int] = [
        message(i, 6, text=f'"message_id":{i},\n') if kept else i for i, kept in changed.items()
    ]
    client.flushall()
    real = RealRedis(client)
    results = []
    for store in (real, RedisModel()):
        put_window(store, before, HELD if aside else WINDOW)
        patch(store, 5, 6, *changes, capacity=capacity)
        results.append((store.get(WINDOW), store.get(HELD), store.get(TOMBSTONE)))
    real.close()
    assert results[0] == results[1]
    # The model is right: it holds what the rows from its `lo` on are after the change.
    if label != 5 or results[1][0] is None:
        return
    found = values.decode_window(results[1][0], CHANNEL)[0]
    after = (set(held) | {i for i, kept in changed.items() if kept}) - {
        i for i, kept in changed.items() if not kept
    }
    expected = sorted((i for i in after if found.complete or i >= found.lo), reverse=True)
    assert [m.message_id for m in found.messages] == expected
    assert len(expected) <= capacity
    assert found.complete <= complete
