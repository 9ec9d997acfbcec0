"""The Lua scripts and their model: who may fill, and what a change takes away."""

import pytest
from scripted import (
    CHANNEL,
    GENERATION,
    HELD,
    HUGE,
    KEY,
    KEYS,
    LEASE,
    LIFE,
    TOMBSTONE,
    WINDOW,
    Store,
    fill,
    invalidate,
    lease,
    mark,
    message,
    patch,
    put_window,
    window,
)

from telegram_hybrid.schema.redis import scripts, values


def test_one_reader_gets_the_lease_and_the_next_hears_how_long_it_lasts(store: Store) -> None:
    assert lease(store, "a") == [1, 0, 0]
    granted, discarded, left = lease(store, "b")
    assert (granted, discarded) == (0, 0)
    assert 9000 < left <= 10_000
    assert lease(store, "c")[0] == 0
    assert store.get(LEASE) == b"a+", "somebody waits; said once"
    assert 9 < store.seconds_left(LEASE) <= 10


def test_a_lease_ends_after_its_seconds(store: Store) -> None:
    lease(store, "a", 0.05)
    store.wait(0.05)
    assert fill(store, "a") == 0
    assert lease(store, "b") == [1, 0, 0]


def test_the_holder_of_the_lease_fills_once_and_the_value_expires(store: Store) -> None:
    lease(store)
    assert fill(store, value=b"first") == 1
    assert fill(store, value=b"second") == 0
    assert store.get(KEY) == b"first"
    assert store.get(LEASE) is None
    assert 55 < store.seconds_left(KEY) <= 60


def test_an_empty_fill_only_gives_the_lease_back(store: Store) -> None:
    store.put(KEY, b"before", 60)
    lease(store)
    assert fill(store, value=b"") == 0
    assert store.get(LEASE) is None
    assert store.get(KEY) == b"before"


def test_nobody_fills_without_a_lease(store: Store) -> None:
    # Seen to fail when FILL takes any lease for its own.
    assert fill(store) == 0
    lease(store, "a")
    assert fill(store, "b") == 0
    lease(store, "b")
    assert fill(store, "b") == 0
    assert store.get(KEY) is None
    assert store.get(LEASE) == b"a+"


def test_a_fill_for_which_nobody_waits_is_not_announced(store: Store) -> None:
    lease(store)
    fill(store)
    assert store.published == []


def test_a_fill_that_lost_its_lease_tells_those_who_waited_for_it(store: Store) -> None:
    lease(store, "a")
    lease(store, "b")
    store.delete(LEASE)
    assert fill(store, "a") == 0
    assert store.published == [(KEYS.filled, KEY)]


@pytest.mark.parametrize("value", [b"value", b""])
def test_a_fill_tells_those_who_wait_and_nobody_else(store: Store, value: bytes) -> None:
    lease(store, "a")
    lease(store, "b")
    fill(store, "a", value=value)
    assert store.published == [(KEYS.filled, KEY)]


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("how", ["mark", "invalidate"])
def test_who_takes_a_lease_tells_those_who_wait(store: Store, how: str, waits: bool) -> None:
    store.put(KEY, b"old", 60)
    lease(store, "a")
    if waits:
        lease(store, "b")
    assert (mark(store, KEY) if how == "mark" else invalidate(store, 6)) == 1
    assert store.get(KEY) is None
    assert store.published == [(KEYS.filled, KEY)] * waits
    assert fill(store, "a", as_of=9) == 0


def test_an_invalidation_leaves_a_tombstone(store: Store) -> None:
    assert invalidate(store, 6) == 1
    assert store.get(TOMBSTONE) == b"6"
    assert 65 < store.seconds_left(TOMBSTONE) <= 70


def test_a_tombstone_refuses_what_is_older_and_lets_in_its_own_version(store: Store) -> None:
    invalidate(store, 6)
    lease(store)
    assert fill(store, as_of=5) == 0
    assert store.get(LEASE) is None, "a refused fill gives its lease back"
    lease(store)
    assert fill(store, as_of=6) == 1


def test_a_late_invalidation_never_lowers_the_tombstone(store: Store) -> None:
    invalidate(store, 10)
    invalidate(store, 9)
    lease(store)
    assert fill(store, as_of=9) == 0


def test_versions_above_2_to_53_are_told_apart(store: Store) -> None:
    invalidate(store, HUGE + 1)
    lease(store)
    assert fill(store, as_of=HUGE) == 0
    lease(store)
    assert fill(store, as_of=2**63 - 1) == 1
    put_window(store, window(HUGE, 9))
    assert patch(store, HUGE + 1, HUGE + 2, message(9, HUGE + 2)) is None


def test_a_tombstone_of_version_0_refuses_nothing(store: Store) -> None:
    invalidate(store, 0)
    lease(store)
    assert fill(store, as_of=0) == 1


@pytest.mark.parametrize(
    ("has", "least", "stays"),
    [(5, 6, False), (6, 6, True), (10, 6, True), (9, 10, False), (HUGE, HUGE + 1, False)],
)
def test_only_a_value_older_than_the_change_goes(
    store: Store, has: int, least: int, stays: bool
) -> None:
    data = values.encode_message(message(7, has), LIFE)
    store.put(KEY, data, 60)
    lease(store)
    invalidate(store, 2**60, least)
    assert store.get(KEY) == (data if stays else None)
    assert store.get(LEASE) == (b"a" if stays else None)


def test_a_cached_absence_goes_with_any_change(store: Store) -> None:
    store.put(KEY, values.encode_absence(LIFE), 60)
    invalidate(store, 1)
    assert store.get(KEY) is None


def test_a_value_of_another_type_is_discarded_with_the_lease(store: Store) -> None:
    store.put_foreign(KEY)
    assert lease(store) == [1, 1, 0]
    assert fill(store) == 1
    assert store.get(KEY) == b"value"


def test_a_value_is_discarded_only_if_the_reader_could_not_decode_it(store: Store) -> None:
    store.put(KEY, b"good", 60)
    assert lease(store, "a") == [1, 0, 0]
    assert store.get(KEY) == b"good"
    assert lease(store, "b", undecodable=True)[:2] == [0, 1]
    assert store.get(KEY) is None


def test_a_reader_that_missed_what_is_there_by_now_is_to_look_again(store: Store) -> None:
    store.put(KEY, b"good", 60)
    call = scripts.lease(KEYS, KEY, "a", 10, missing=True)
    assert store.run(call) == [0, 0, 1]
    assert store.get(LEASE) is None
    store.put_foreign(KEY)
    assert store.run(call) == [1, 1, 0], "what is not ours is not what it waits for"
    store.delete(LEASE)
    assert store.run(call) == [1, 0, 0]


@pytest.mark.parametrize(
    ("held", "seconds"), [(b"someone", None), (b"someone", 101), (b"x" * 65, 5)]
)
def test_a_lease_that_is_none_of_ours_is_taken_over(
    store: Store, held: bytes, seconds: float | None
) -> None:
    store.put(LEASE, held, seconds)
    assert lease(store, "a") == [1, 0, 0]


@pytest.mark.parametrize("stone", [b"zzz", b"", b"-5", b"7 ", b"9" * 20])
def test_a_tombstone_that_is_no_version_refuses_nothing(store: Store, stone: bytes) -> None:
    store.put(TOMBSTONE, stone, 60)
    lease(store)
    assert fill(store) == 1
    invalidate(store, 6)
    assert store.get(TOMBSTONE) == b"6"


@pytest.mark.parametrize("key", [KEY, LEASE, WINDOW, KEYS.lease(WINDOW), HELD, TOMBSTONE])
def test_keys_of_another_type_neither_open_nor_close_anything(store: Store, key: str) -> None:
    store.put_foreign(key)
    assert fill(store) == 0
    assert mark(store, KEY, previous=5) == 1
    store.put_foreign(key)
    assert invalidate(store, 6) == 1
    store.put_foreign(key)
    assert patch(store, 5, 7, message(9)) is None
    store.put_foreign(key)
    assert lease(store)[0] == 1
    assert fill(store, as_of=7) == 1
    assert store.get(KEY) == b"value"


@pytest.mark.parametrize("key", [GENERATION, WINDOW, HELD])
def test_a_mark_drops_or_hides_what_is_of_another_type(store: Store, key: str) -> None:
    store.put_foreign(key)
    mark(store, previous=5)
    assert store.seconds_left(key) is None
    assert store.get(WINDOW) is None


@pytest.mark.parametrize("lost", [LEASE, KEY, TOMBSTONE])
def test_evicted_keys_fail_safe(store: Store, lost: str) -> None:
    lease(store)
    store.delete(lost)
    invalidate(store, 6)
    store.delete(lost)
    assert fill(store, as_of=5) == 0
    assert store.get(KEY) is None


@pytest.mark.parametrize("how", ["mark", "invalidate"])
def test_every_write_ends_the_generation(store: Store, how: str) -> None:
    store.put(GENERATION, b"before", 60)
    assert (mark(store) if how == "mark" else invalidate(store, 6)) == 1
    assert store.get(GENERATION) is None


def test_an_invalidation_flags_what_is_stored_and_drops_the_rest_as_ever(store: Store) -> None:
    # Broken on purpose: with the flags counted among the stale values they were dropped.
    store.put(KEY, b'{"version":3}', 60)
    flags = [KEYS.seen(CHANNEL, number) for number in (7, 8)]
    assert invalidate(store, 4, seen=flags) == 1
    assert store.get(KEY) is None
    assert [store.get(flag) for flag in flags] == [values.SEEN] * 2
    assert 89 < (store.seconds_left(flags[0]) or 0) <= 90
    assert store.get(TOMBSTONE) == b"4"


@pytest.mark.parametrize("how", ["mark", "invalidate"])
def test_a_write_of_thousands_drops_each_and_tells_who_waits(store: Store, how: str) -> None:
    # Broken on purpose: with all names in one command, Lua refuses; with the first 4,000 alone, or
    # leases counted from the wrong place in later steps, others stayed or the wrong ones were told.
    names = [KEYS.message(CHANNEL, number) for number in range(9_000)]
    some = [names[at] for at in (0, 3_995, 3_999, 4_000, 4_001, 7_999, 8_000, 8_999)]
    for name in some:
        store.put(name, b'{"version":3}', 60)
        store.put(KEYS.lease(name), b"a+", 60)
    newer = names[5_000]
    store.put(newer, b'{"version":9}', 60)
    store.put(KEYS.lease(newer), b"a+", 60)
    if how == "mark":
        assert mark(store, *names) == 1
        some.append(newer)
    else:
        below = dict.fromkeys(names, 5)
        assert store.run(scripts.invalidate(KEYS, CHANNEL, 5, below, 70)) == 1
        assert store.get(newer) == b'{"version":9}', "made after the commit"
        assert store.get(KEYS.lease(newer)) == b"a+"
    assert not [key for name in some for key in (name, KEYS.lease(name)) if store.get(key)]
    assert sorted(store.published) == sorted((KEYS.filled, name) for name in some)
