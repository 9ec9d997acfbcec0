"""The protocol driven by hand: which request follows which reply."""

from collections.abc import Generator
from typing import Any

import pytest
from cachelab.rows import CHANNEL, KEYS, message
from hypothesis import given
from hypothesis import strategies as st

from telegram_hybrid.cache import EVERY_ID
from telegram_hybrid.cache.protocol import Answer, Lifetimes, Protocol
from telegram_hybrid.cache.requests import (
    Await,
    Fill,
    FillEntry,
    Flag,
    Get,
    Grant,
    Lease,
    LeaseEntry,
    Load,
    Loaded,
)
from telegram_hybrid.schema.redis import values
from telegram_hybrid.schema.redis.values import PAGE, Life, Window

NOW = 1_793_000_000.0
KEY = KEYS.message(CHANNEL, 7)
ROW = message(7, 4)
GRANTED = [Grant(True)]
REFUSED = [Grant(False, 3.0)]


def protocol(chance: float = 0.0, now: float = NOW, early: float = 1.0) -> Protocol:
    return Protocol(
        keys=KEYS,
        lives=Lifetimes(early=early),
        new_token=lambda: "token",
        now=lambda: now,
        chance=lambda: chance,
    )


def drive(reading: Generator[Any, Any, Any], *replies: Any) -> tuple[list[Any], Answer[Any] | None]:
    """Send the replies one by one; return the requests and, if it ended, the answer."""
    requests = []
    reply = None
    for following in (*replies, None):
        try:
            requests.append(reading.send(reply))
        except StopIteration as done:
            return requests, done.value
        reply = following
    return requests, None


def kinds(requests: list[Any]) -> list[type]:
    return [type(request) for request in requests]


def stored(row: Any = ROW, until: float = NOW + 3600, cost: float = 0.0) -> bytes:
    life = Life(until, cost)
    return values.encode_message(row, life) if row else values.encode_absence(life)


def loaded(*rows: Any, as_of: int = 9, quiet: bool = True) -> Loaded:
    return Loaded({row.message_id: row for row in rows}, as_of, quiet)


def read(**options: Any) -> Generator[Any, Any, Any]:
    return protocol(**options).message(CHANNEL, 7)


def test_a_hit_is_one_get_and_nothing_else() -> None:
    requests, answer = drive(read(), [stored()])
    assert requests == [Get([KEY])]
    assert answer == Answer(ROW, hits=1, misses=0)


def test_a_miss_leases_loads_and_fills() -> None:
    requests, answer = drive(read(), [None], GRANTED, loaded(ROW), [True])
    assert requests == [
        Get([KEY]),
        Lease([LeaseEntry(KEY, "token", 10.0, missing=True)]),
        Load([7], guarded=True),
        Fill(CHANNEL, [FillEntry(KEY, "token", 9, stored(), 3600.0)]),
    ]
    assert answer == Answer(ROW, hits=0, misses=1)


def test_what_is_filled_together_does_not_expire_together() -> None:
    requests, _ = drive(read(chance=0.5), [None], GRANTED, loaded(ROW), [True])
    assert requests[3].entries[0].seconds == pytest.approx(3600 * 0.95)


def test_an_absence_is_cached_for_a_minute_and_then_a_hit() -> None:
    requests, answer = drive(read(), [None], GRANTED, loaded(), [True])
    assert requests[3].entries == [FillEntry(KEY, "token", 9, stored(None, NOW + 60), 60.0)]
    assert answer == Answer(None, hits=0, misses=1)
    assert drive(read(), [stored(None)])[1] == Answer(None, hits=1, misses=0)


@pytest.mark.parametrize("quiet", [True, False])
def test_what_was_loaded_beside_a_writer_is_answered_but_not_kept(quiet: bool) -> None:
    # Seen to fail when `quiet` is not looked at.
    requests, answer = drive(read(), [None], GRANTED, loaded(ROW, quiet=quiet), [quiet])
    assert requests[3].entries[0].value == (stored() if quiet else b"")
    assert answer.value == ROW


def test_what_cannot_be_decoded_is_discarded_with_the_lease() -> None:
    requests, answer = drive(read(), [b"garbage"], GRANTED, loaded(ROW), [True])
    assert requests[1] == Lease([LeaseEntry(KEY, "token", 10.0, undecodable=True)])
    assert answer == Answer(ROW, hits=0, misses=1)


def test_a_reader_without_the_lease_waits_and_hits() -> None:
    requests, answer = drive(read(), [None], REFUSED, None, [stored()])
    assert kinds(requests) == [Get, Lease, Await, Get]
    assert requests[2] == Await(KEY, pytest.approx(3.001))
    assert answer == Answer(ROW, hits=1, misses=0)


def test_a_loader_that_dies_hands_over_when_its_lease_ends() -> None:
    replies = [[None], REFUSED, None, [None], GRANTED, loaded(ROW), [True]]
    requests, answer = drive(read(), *replies)
    assert kinds(requests) == [Get, Lease, Await, Get, Lease, Load, Fill]
    assert answer.value == ROW


def test_nobody_waits_for_ever() -> None:
    replies = [[None], REFUSED, None] * 4
    requests, answer = drive(read(), *replies, [None], REFUSED, Loaded({7: ROW}))
    assert kinds(requests).count(Await) == 4
    assert requests[-1] == Load([7]), "not guarded: nothing of it is kept"
    assert answer == Answer(ROW, hits=0, misses=1)


def test_an_error_of_the_loader_gives_the_lease_back_and_is_raised() -> None:
    # Seen to fail without the Fill in `_load`: others would wait for the lease to end.
    reading = read()
    next(reading)
    reading.send([None])
    reading.send(GRANTED)
    assert reading.throw(LookupError("no database")) == Fill(CHANNEL, [FillEntry(KEY, "token")])
    with pytest.raises(LookupError, match="no database"):
        reading.send([False])


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        pytest.param([None, loaded(ROW)], [Get, Load], id="at Get"),
        pytest.param([[None], None, loaded(ROW)], [Get, Lease, Load], id="at Lease"),
        pytest.param(
            [[None], [Grant(False)], loaded(ROW)], [Get, Lease, Load], id="refusing the lease"
        ),
        pytest.param([[None], GRANTED, loaded(ROW), None], [Get, Lease, Load, Fill], id="at Fill"),
        pytest.param(
            [[None], REFUSED, None, None, loaded(ROW)],
            [Get, Lease, Await, Get, Load],
            id="after waiting",
        ),
    ],
)
def test_once_redis_failed_a_read_asks_only_the_database_and_once(
    replies: list[Any], expected: list[type]
) -> None:
    # P7. Seen to fail when `stored is None` goes on to the lease.
    requests, answer = drive(read(), *replies)
    assert kinds(requests) == expected
    assert answer == Answer(ROW, hits=0, misses=1)


@pytest.mark.parametrize(
    ("left", "chance", "early"),
    [(-1, 0.0, True), (0.1, 0.0, False), (0.1, 0.9, True), (0.3, 0.9, False), (0.3, 0.99, True)],
)
def test_the_nearer_the_expiry_the_likelier_a_hit_is_loaded_again(
    left: float, chance: float, early: bool
) -> None:
    # XFetch with a load of 0.1 s: the gap is 0.1 * -ln(1 - chance), 0.23 s at 0.9, 0.46 at 0.99.
    hit = stored(until=NOW + left, cost=0.1)
    requests, _ = drive(read(chance=chance), [hit], GRANTED)
    assert kinds(requests) == ([Get, Lease, Load] if early else [Get])


def test_of_those_who_would_refresh_early_one_does_and_the_others_hit() -> None:
    hit = stored(until=NOW - 1)
    requests, answer = drive(read(), [hit], REFUSED)
    assert kinds(requests) == [Get, Lease]
    assert requests[1] == Lease([LeaseEntry(KEY, "token", 10.0)], early=True)
    assert answer == Answer(ROW, hits=1, misses=0)
    _, answer = drive(read(), [hit], GRANTED, loaded(message(7, 5)), [True])
    assert answer == Answer(message(7, 5), hits=0, misses=1, early=1)
    assert drive(read(), [hit], None)[1] == Answer(ROW, hits=1, misses=0)


def test_a_mixed_batch_leases_loads_and_fills_only_what_was_missed() -> None:
    names = [KEYS.message(CHANNEL, i) for i in range(1, 5)]
    requests, answer = drive(
        protocol().messages(CHANNEL, [1, 2, 3, 4]),
        [stored(message(1, 5)), b"garbage", None, None],
        [Grant(True), Grant(True), Grant(False, 9.0)],
        loaded(message(2, 6), message(4, 8)),
        [True, True],
    )
    assert requests[0] == Get(names)
    assert [(e.key, e.undecodable) for e in requests[1].entries] == [
        (names[1], True),
        (names[2], False),
        (names[3], False),
    ]
    assert requests[2] == Load([2, 3, 4], guarded=True)
    assert [(e.key, e.value, e.seconds) for e in requests[3].entries] == [
        (names[1], stored(message(2, 6)), 3600.0),
        (names[2], stored(None, NOW + 60), 60.0),
    ]
    assert answer == Answer(
        {1: message(1, 5), 2: message(2, 6), 4: message(4, 8)}, hits=1, misses=3
    )


def test_a_batch_of_which_others_load_everything_is_loaded_and_not_kept() -> None:
    requests, answer = drive(
        protocol().messages(CHANNEL, [1, 2]), [None, None], REFUSED * 2, loaded(message(1))
    )
    assert kinds(requests) == [Get, Lease, Load]
    assert requests[2] == Load([1, 2])
    assert answer.value == {1: message(1)}


def window_of(*ids: int, complete: bool = False) -> Window:
    rows = [message(i) for i in ids]
    return Window.of(rows, len(rows) + 1 if complete else len(rows), 5)


@pytest.mark.parametrize(
    ("window", "limit", "hit"),
    [
        (window_of(9, 7), 2, True),
        (window_of(9, 7), 3, False),
        (window_of(9, 7, complete=True), 3, True),
        (window_of(complete=True), 1, True),
        (Window((), False, 5, 9, 9), 0, True),
        (Window((), False, 5, 9, 9), 1, False),
    ],
)
def test_a_window_is_a_hit_if_it_holds_enough(window: Window, limit: int, hit: bool) -> None:
    data = values.encode_window(window, Life(NOW + 60, 0.0))
    requests, answer = drive(protocol().window(CHANNEL, limit), [data], GRANTED)
    if hit:
        assert answer == Answer(window, hits=1, misses=0)
    else:
        lease = Lease([LeaseEntry(KEYS.window(CHANNEL), "token", 10.0)])
        assert requests[1:] == [lease, Load([], guarded=True)], "right, so not discarded"


def test_a_window_is_filled_as_of_the_channels_version() -> None:
    window = window_of(9, 7)
    replies = [[None], GRANTED, Loaded(window, 5, quiet=True), [True]]
    requests, answer = drive(protocol().window(CHANNEL, 2), *replies)
    data = values.encode_window(window, Life(NOW + 3600, 0.0))
    key = KEYS.window(CHANNEL)
    assert requests[3] == Fill(CHANNEL, [FillEntry(key, "token", 5, data, 3600.0)])
    assert answer == Answer(window, hits=0, misses=1)


def test_pages_are_hit_each_and_loaded_together() -> None:
    pages = {n: Window.page(n, [message(PAGE * n + 3)], 5) for n in (0, 1, 2)}
    data = {n: values.encode_window(page, Life(NOW + 3600, 0.0)) for n, page in pages.items()}
    requests, answer = drive(
        protocol().pages(CHANNEL, [0, 1, 2]),
        [data[0], data[0], None],
        [Grant(True), Grant(True)],
        Loaded({1: pages[1], 2: pages[2]}, 5, quiet=True),
        [True, True],
    )
    entries = requests[1].entries
    assert [e.undecodable for e in entries] == [True, False], "page 0 under the name of page 1"
    assert requests[2] == Load([1, 2], guarded=True)
    assert [e.value for e in requests[3].entries] == [data[1], data[2]]
    assert answer == Answer(pages, hits=1, misses=2)


def page_of(number: int, *ids: int) -> bytes:
    page = Window.page(number, [message(each) for each in ids], 5)
    return values.encode_window(page, Life(NOW + 3600, 0.0))


def stored_window(*ids: int, until: float = NOW + 3600, cost: float = 0.1) -> bytes:
    return values.encode_window(window_of(*ids), Life(until, cost))


#: Behind 6, two, on page 0: below a window that has 3 * PAGE + 9 and 3 * PAGE + 7.
BEHIND = (CHANNEL, 6, 2)
HEAD = 3 * PAGE + 9, 3 * PAGE + 7


def test_what_follows_a_message_is_one_question_to_window_and_pages() -> None:
    reading = protocol().after(CHANNEL, PAGE - 3, 4)
    requests, answer = drive(
        reading, [stored_window(*HEAD), page_of(0, PAGE - 1, 5), page_of(1, PAGE + 2, PAGE + 1)]
    )
    assert requests == [Get([KEYS.window(CHANNEL), KEYS.page(CHANNEL, 0), KEYS.page(CHANNEL, 1)])]
    found = [message(PAGE - 1), message(PAGE + 1), message(PAGE + 2)]
    assert answer == Answer((found, 2 * PAGE - 1), hits=3, misses=0)


def test_what_follows_is_answered_by_the_window_or_by_the_page_alone() -> None:
    head = drive(protocol().after(CHANNEL, HEAD[1], 2), [stored_window(*HEAD), None])
    assert head == (head[0], Answer(([message(HEAD[0])], EVERY_ID), hits=1, misses=0))
    page = drive(protocol().after(*BEHIND), [None, page_of(0, 9, 8, 7, 6)])
    assert page == (page[0], Answer(([message(7), message(8)], 8), hits=1, misses=0))


@pytest.mark.parametrize(
    "replies",
    [
        [None, None],
        [stored_window(*HEAD), None],
        [None, page_of(0, 7)],
        [b"garbage", page_of(0, 9, 8, 7)],
        [stored_window(*HEAD), b"garbage"],
        [stored_window(*HEAD), page_of(1, PAGE + 7)],
        [stored_window(*HEAD), page_of(0, 9, 8, 7).replace(b'"message_id":8', b'"message_id":-8')],
        [stored_window(*HEAD, until=NOW + 3), page_of(0, 9, 8, 7)],
    ],
    ids=[
        "nothing cached",
        "the page missing",
        "the window missing, and wanted",
        "the window garbage",
        "the page garbage",
        "another page",
        "a wanted message that cannot be decoded",
        "the window may be due",
    ],
)
def test_what_follows_is_else_read_by_itself(replies: list[bytes | None]) -> None:
    # Broken on purpose and seen to fail: the window's life ignored, or held to be over too late.
    requests, answer = drive(protocol().after(*BEHIND), replies)
    assert kinds(requests) == [Get]
    assert answer == Answer(None, hits=0, misses=0), "counted where it is read"


def test_a_redis_that_failed_is_not_asked_again_for_what_follows() -> None:
    requests, answer = drive(protocol().after(*BEHIND), None)
    assert kinds(requests) == [Get]
    assert answer == Answer(([], 6), hits=0, misses=1)


@given(chance=st.floats(0, 1, exclude_max=True), left=st.floats(0, 40), early=st.floats(0, 3))
def test_no_early_load_is_overlooked(chance: float, left: float, early: float) -> None:
    life = Life(NOW + left, 1.0)
    reader = protocol(chance=chance, early=early)
    if reader._is_early(life):
        assert reader._may_be_early(life)


def test_a_part_of_a_window_is_a_hit_and_the_rest_is_not_decoded() -> None:
    data = stored_window(9, 7, 5).replace(b'"message_id":5', b'"message_id":5,"text":7')
    _, answer = drive(protocol().window(CHANNEL, 2), [data])
    assert answer == Answer(Window((message(9), message(7)), False, 5, 7, 9), hits=1, misses=0)
    for limit in (3, None):
        requests, _ = drive(protocol().window(CHANNEL, limit), [data], GRANTED)
        assert requests[1].entries[0].undecodable


def test_seen_flags_are_set_after_the_database_said_so_and_only_for_what_it_said() -> None:
    # P2. Seen to fail when Flag is yielded for every unknown id.
    reading = protocol().seen(CHANNEL, [1, 2, 3])
    requests, answer = drive(reading, [values.SEEN, b"1", None], Loaded({3}), None)
    assert requests[1:] == [Load([2, 3]), Flag([KEYS.seen(CHANNEL, 3)], 7200.0)]
    assert answer == Answer({1, 3}, hits=1, misses=2)


def test_seen_flags_are_not_set_in_a_redis_that_just_failed() -> None:
    requests, answer = drive(protocol().seen(CHANNEL, [1]), None, Loaded({1}))
    assert kinds(requests) == [Get, Load]
    assert answer.value == {1}


@pytest.mark.parametrize("kind", ["messages", "seen", "pages"])
def test_reading_nothing_asks_nobody(kind: str) -> None:
    assert drive(getattr(protocol(), kind)(CHANNEL, []))[0] == []
