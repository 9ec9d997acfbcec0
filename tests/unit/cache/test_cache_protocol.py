"""The protocol driven by hand: which request follows which reply."""

from typing import Any

import pytest
from cachelab.interleavings import CHANNEL, KEYS, LIVES, message

from telegram_hybrid.cache import protocol
from telegram_hybrid.cache.protocol import (
    Answer,
    Fill,
    FillEntry,
    Flag,
    Get,
    Invalidate,
    InvalidateEntry,
    Lease,
    LeaseEntry,
    Lifetimes,
    Load,
)
from telegram_hybrid.model import Change, EventType, Message, MessageKey
from telegram_hybrid.schema.redis import values
from telegram_hybrid.schema.redis.values import Window


def drive(reading: protocol.Reading[Any], *replies: Any) -> tuple[list[Any], Answer[Any] | None]:
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


def read(*message_ids: int) -> protocol.Reading[dict[int, Message]]:
    return protocol.read_messages(KEYS, LIVES, CHANNEL, message_ids, lambda: "token")


def stored(*messages: Message) -> list[bytes | None]:
    return [values.encode_message(m) for m in messages]


def name(message_id: int) -> str:
    return KEYS.message(CHANNEL, message_id)


def test_a_hit_is_one_get_and_nothing_else() -> None:
    requests, answer = drive(read(7), stored(message(7, 1)))
    assert requests == [Get([name(7)])]
    assert answer == Answer({7: message(7, 1)}, hits=1, misses=0)


def test_a_mixed_batch_leases_loads_and_fills_only_what_was_missed() -> None:
    hit, new = message(1, 5), message(3, 8)
    requests, answer = drive(
        read(1, 2, 3, 4),
        [*stored(hit), b"garbage", None, None],
        [True, True, False],
        {2: message(2, 6), 3: new, 4: message(4, 9)},
        None,
    )
    assert requests[1] == Lease(
        [
            LeaseEntry(name(2), "token", 10.0, undecodable=True),
            LeaseEntry(name(3), "token", 10.0),
            LeaseEntry(name(4), "token", 10.0),
        ]
    )
    assert requests[2] == Load([2, 3, 4])
    assert requests[3] == Fill(
        [
            FillEntry(name(2), "token", 6, stored(message(2, 6))[0], 3600.0),
            FillEntry(name(3), "token", 8, stored(new)[0], 3600.0),
        ]
    )
    assert list(answer.value) == [1, 2, 3, 4]
    assert (answer.hits, answer.misses) == (1, 3)


def test_nothing_is_filled_for_what_is_not_stored() -> None:
    requests, answer = drive(read(7), [None], [True], {})
    assert [type(request) for request in requests] == [Get, Lease, Load]
    assert answer == Answer({}, hits=0, misses=1)


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        pytest.param([None], [Get, Load], id="at Get"),
        pytest.param([[None], None], [Get, Lease, Load], id="at Lease"),
    ],
)
def test_once_redis_failed_a_read_asks_only_the_database(
    replies: list[Any], expected: list[type]
) -> None:
    # P7. Seen to fail when `stored is None` goes on to the lease.
    found = {7: message(7, 1)}
    requests, answer = drive(read(7), *replies, found)
    assert [type(request) for request in requests] == expected
    assert answer.value == found
    assert (answer.hits, answer.misses) == (0, 1)


def test_a_failed_fill_does_not_change_the_answer() -> None:
    _, answer = drive(read(7), [None], [True], {7: message(7, 1)}, None)
    assert answer.value == {7: message(7, 1)}


def window(replies: list[Any]) -> tuple[list[Any], Answer[Window | None] | None]:
    return drive(protocol.read_window(KEYS, LIVES, CHANNEL, lambda: "token"), *replies)


def test_a_window_is_loaded_only_by_who_may_fill_it() -> None:
    built = Window.of([message(7, 3)], 10)
    assert window([None])[1].value is None
    assert window([[None], None])[1].value is None
    assert window([[None], [False]])[1].value is None
    requests, answer = window([[None], [True], built, None])
    key = KEYS.window(CHANNEL)
    assert requests[3] == Fill([FillEntry(key, "token", 3, values.encode_window(built), 3600.0)])
    assert answer == Answer(built, hits=0, misses=1)
    assert window([[values.encode_window(built)]])[1] == Answer(built, hits=1, misses=0)


def test_seen_flags_are_set_after_the_database_said_so_and_only_for_what_it_said() -> None:
    # P2. Seen to fail when Flag is yielded for every unknown id.
    reading = protocol.read_seen(KEYS, LIVES, CHANNEL, [1, 2, 3])
    requests, answer = drive(reading, [values.SEEN, b"1", None], {3}, None)
    assert requests[1:] == [Load([2, 3]), Flag([KEYS.seen(CHANNEL, 3)], 7200.0)]
    assert answer == Answer({1, 3}, hits=1, misses=2)


def test_seen_flags_are_not_set_in_a_redis_that_just_failed() -> None:
    requests, answer = drive(protocol.read_seen(KEYS, LIVES, CHANNEL, [1]), None, {1})
    assert [type(request) for request in requests] == [Get, Load]
    assert answer.value == {1}


def test_an_invalidation_names_each_key_once_with_its_newest_version() -> None:
    lives = Lifetimes(message=50, window=20, lease=1)

    def change(message_id: int, version: int, kind: EventType) -> Change:
        return Change(MessageKey(CHANNEL, message_id), version, kind)

    request = protocol.invalidation(
        KEYS,
        lives,
        [
            change(1, 4, EventType.RECEIVED),
            change(2, 9, EventType.EDITED),
            change(2, 7, EventType.STATUS_CHANGED),
            change(3, 8, EventType.DELETED),
        ],
    )
    assert request == Invalidate(
        [
            InvalidateEntry(KEYS.window(CHANNEL), 0, 51),
            InvalidateEntry(name(2), 9, 51),
            InvalidateEntry(name(3), 8, 51),
        ]
    )


def test_a_received_message_spares_every_key_but_its_window() -> None:
    request = protocol.invalidation(
        KEYS, LIVES, [Change(MessageKey(CHANNEL, 1), 4, EventType.RECEIVED)]
    )
    assert [entry.key for entry in request.entries] == [KEYS.window(CHANNEL)]
