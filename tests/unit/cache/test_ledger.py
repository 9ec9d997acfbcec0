"""The ledger as events: what it wants repeated, and when hits may be trusted.

Broken on purpose and seen to fail: `settle` that forgets what was not applied; one that takes for
applied what a master acknowledged that has been replaced meanwhile; `moved` that repeats nothing;
a `Stale` without bounds.
"""

from telegram_hybrid.cache import ledger
from telegram_hybrid.cache.ledger import CHANNELS, CHUNK, GRACE, MESSAGES, REMEMBER, Ledger, Stale
from telegram_hybrid.model import Change, ChannelWrite, EventType, MessageKey


def write(channel_id: int, version: int, *message_ids: int) -> ChannelWrite:
    changes = [
        Change(MessageKey(channel_id, number), version, EventType.EDITED) for number in message_ids
    ]
    return ChannelWrite(channel_id, version, tuple(changes), previous=version - 1)


def told(stale: Stale) -> dict[int, tuple[int, dict[int, int]]]:
    """What would be invalidated: channel -> (version, {message: version})."""
    found: dict[int, tuple[int, dict[int, int]]] = {}
    for each in stale.writes():
        assert each.previous is None, "nothing may be patched out of turn"
        known = found.setdefault(each.channel_id, (each.version, {}))
        known[1].update({change.key.message_id: change.version for change in each.changes})
    return found


def test_nothing_happened_so_nothing_is_owed() -> None:
    book = Ledger()
    assert not book.is_owing
    assert book.wait(0.0) == 0.0


def test_what_redis_did_not_hear_is_owed_until_it_is_applied() -> None:
    book = Ledger()
    book.owe([write(-1, 5, 7)])
    assert book.is_owing
    assert told(book.begin()) == {-1: (5, {7: 5})}
    assert book.is_owing, "not before it is settled"
    book.settle(1.0, applied=False)
    book.owe([write(-1, 6, 8)])
    assert told(book.begin()) == {-1: (6, {7: 5, 8: 6})}
    book.owe([write(-2, 9, 1)])
    book.settle(2.0, applied=True)
    assert told(book.begin()) == {-2: (9, {1: 9})}
    book.settle(3.0, applied=True)
    assert not book.is_owing
    assert book.wait(3.0) == 0.0


def test_an_older_write_lowers_no_version() -> None:
    book = Ledger()
    book.owe([write(-1, 6, 7)])
    book.owe([write(-1, 5, 7)])
    assert told(book.begin()) == {-1: (6, {7: 6})}


def test_a_new_master_is_told_what_the_old_one_acknowledged_lately() -> None:
    book = Ledger()
    book.applied(100.0, [write(-1, 5, 7)])
    book.applied(109.0, [write(-1, 6, 8)])
    book.moved(109.9)
    assert told(book.begin()) == {-1: (6, {7: 5, 8: 6})}
    book.settle(110.0, applied=True)
    assert not book.is_owing
    assert book.wait(110.0) == GRACE, "others repeat theirs meanwhile"
    assert book.wait(110.0 + GRACE) == 0.0


def test_what_was_applied_within_the_time_is_never_forgotten_and_older_is_in_the_end() -> None:
    for age in (0.0, REMEMBER / 2, REMEMBER - 0.1):
        for since in (0.0, REMEMBER * 0.9, REMEMBER * 1.5):
            book = Ledger()
            book.applied(100.0, [write(-2, 1, 1)])
            book.applied(100.0 + since, [write(-1, 5, 7)])
            book.moved(100.0 + since + age)
            assert told(book.begin())[-1] == (5, {7: 5})
    book = Ledger()
    book.applied(100.0, [write(-1, 5, 7)])
    book.moved(100.0 + 2 * REMEMBER)
    assert told(book.begin()) == {}


def test_a_master_that_is_replaced_while_it_is_told_has_heard_nothing() -> None:
    book = Ledger()
    book.owe([write(-1, 5, 7)])
    book.begin()
    book.moved(1.0)
    book.settle(1.1, applied=True)
    assert book.is_owing
    assert told(book.begin()) == {-1: (5, {7: 5})}
    book.settle(1.2, applied=True)
    assert not book.is_owing


def test_what_was_repeated_is_repeated_to_the_next_master_too() -> None:
    book = Ledger()
    book.owe([write(-1, 5, 7)])
    book.begin()
    book.settle(100.0, applied=True)
    book.moved(105.0)
    assert told(book.begin()) == {-1: (5, {7: 5})}


def test_a_master_without_anything_to_be_told_is_still_doubted() -> None:
    book = Ledger()
    book.moved(50.0)
    assert book.is_owing
    assert not book.begin()
    book.settle(50.0, applied=True)
    assert book.wait(51.0) == GRACE - 1.0


def test_a_restarted_server_loses_everything_of_ours() -> None:
    book = Ledger()
    book.owe([write(-1, 5, 7)])
    book.restarted()
    assert book.begin().everything


def test_a_thread_that_a_fork_left_behind_leaves_its_debt() -> None:
    book = Ledger()
    book.owe([write(-1, 5, 7)])
    book.begin()
    assert told(book.begin()) == {-1: (5, {7: 5})}


def test_channels_of_which_nobody_knows_the_messages_are_owed_as_a_whole() -> None:
    book = Ledger()
    book.owe([write(-1, 5, 7), write(-2, 6, 8)])
    book.owe_whole({-1: 9, -3: 4})
    stale = book.begin()
    assert told(stale) == {-1: (9, {}), -2: (6, {8: 6}), -3: (4, {})}
    assert stale.whole == {-1, -3}
    book.settle(0.0, applied=True)
    assert not book.is_owing
    book.owe_whole({-number: 1 for number in range(1, CHANNELS + 2)})
    assert book.begin().everything


def test_one_channel_too_large_is_forgotten_as_a_whole_and_others_are_not() -> None:
    stale = Stale()
    stale.add([write(-2, 3, 1)])
    for at in range(0, MESSAGES + 1000, 1000):
        stale.add([write(-1, at + 1000, *range(at, at + 1000))])
    assert stale.whole == {-1}
    assert told(stale) == {-1: (MESSAGES + 1000, {}), -2: (3, {1: 3})}
    stale.add([write(-1, 99_999, 5)])
    assert told(stale)[-1] == (99_999, {})


def test_too_many_channels_are_everything_and_take_no_memory() -> None:
    stale = Stale()
    stale.add([write(-number, 1, 1) for number in range(1, CHANNELS + 1)])
    assert not stale.everything
    stale.add([write(-CHANNELS - 1, 1, 1)])
    assert stale.everything
    stale.add([write(-5, 1, 1)])
    assert told(stale) == {}
    assert stale, "there is something to do"


def test_the_bounds_survive_a_merge() -> None:
    large, everything, merged = Stale(), Stale(), Stale()
    large.add([write(-1, 5, *range(MESSAGES + 1))])
    everything.forget_all()
    merged.add([write(-1, 6, 1), write(-2, 2, 2)])
    merged.merge(large)
    assert merged.whole == {-1}
    assert told(merged) == {-1: (6, {}), -2: (2, {2: 2})}
    merged.merge(everything)
    assert merged.everything


def test_no_invalidation_is_larger_than_a_chunk() -> None:
    stale = Stale()
    stale.add([write(-1, 5, *range(2 * CHUNK + 1))])
    assert [len(each.changes) for each in stale.writes()] == [CHUNK, CHUNK, 1]
    assert {each.version for each in stale.writes()} == {5}
    assert ledger.CHUNK <= MESSAGES
