"""Changes: each of them once, none skipped, from any cursor on."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import pytest
from changelog_readers import (
    A,
    B,
    C,
    begun,
    by_channel,
    by_channel_of,
    edited,
    everything,
    fresh_ids,
    ids,
    make_message,
    poll,
    run,
    write,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from statements import collected

from telegram_hybrid import EventType, Hybrid, InvalidInput, MessageKey, Outcome, Status
from telegram_hybrid.errors import CursorExpired
from telegram_hybrid.testing import make_messages

pytestmark = pytest.mark.integration


def test_every_arrival_edit_status_and_deletion_is_one_change_and_nothing_else_is(
    hybrid: Hybrid,
) -> None:
    # Broken on purpose: with every event in the log, or with `>=` above the head, the replay failed
    # on the log's key.
    message = make_message(channel_id=A, text="one", metadata={"views": 1})
    hybrid.messages.save(message)
    hybrid.messages.save(message)
    hybrid.messages.save(attrs.evolve(message, metadata={"views": 9}))
    hybrid.messages.save(edited(message, "three", 3))
    assert hybrid.messages.save(edited(message, "two", 2)).outcome is Outcome.DUPLICATE
    hybrid.messages.mark(*message.key, Status.QUEUED)
    hybrid.messages.mark(*message.key, Status.QUEUED)
    hybrid.messages.mark(*message.key, Status.PUBLISHED)
    hybrid.messages.delete(*message.key, reason="spam")
    hybrid.messages.delete(*message.key)
    hybrid.replay()
    page = hybrid.messages.changes()
    assert [(each.type, each.status) for each in page] == [
        (EventType.RECEIVED, Status.RECEIVED),
        (EventType.EDITED, Status.RECEIVED),
        (EventType.STATUS_CHANGED, Status.QUEUED),
        (EventType.STATUS_CHANGED, Status.PUBLISHED),
        (EventType.DELETED, Status.DELETED),
    ]
    now = hybrid.messages.get(*message.key, include_deleted=True)
    assert now is not None
    for each in page:
        assert each.key == message.key
        assert each.message is not None
        assert attrs.asdict(each.message) == attrs.asdict(now)
    assert [each.is_latest for each in page] == [False] * 4 + [True]
    (earlier,) = [each for each in hybrid.messages.revisions(*message.key) if each.text == "one"]
    assert earlier.version == page.items[0].version
    assert not page.more
    again = hybrid.messages.changes(page.cursor)
    assert not again
    assert again.cursor == page.cursor


@pytest.mark.one_server
def test_two_edits_between_two_calls_are_two_changes(hybrid: Hybrid) -> None:
    message = make_message(channel_id=A)
    hybrid.messages.save(message)
    cursor = hybrid.messages.changes().cursor
    saved = [hybrid.messages.save(edited(message, f"{n}", n)) for n in (1, 2)]
    page = hybrid.messages.changes(cursor)
    assert [each.version for each in page] == [each.version for each in saved]
    assert [each.message and each.message.text for each in page] == ["2", "2"]


def test_a_transaction_that_commits_late_is_told_of_and_holds_up_nothing(hybrid: Hybrid) -> None:
    # Broken on purpose: with a cursor of one number, the highest version of the page, the late
    # message of A never came.
    start = hybrid.messages.changes("now").cursor
    drawn, go = threading.Event(), threading.Event()

    def late() -> None:
        with hybrid.transaction() as tx:
            tx.messages.save(make_message(channel_id=A))
            drawn.set()
            assert go.wait(30)

    thread = threading.Thread(target=late)
    thread.start()
    try:
        assert drawn.wait(30)
        hybrid.messages.save(make_message(channel_id=B))
        hybrid.messages.save(make_message(channel_id=C))
        first = hybrid.messages.changes(start)
        assert ids(first) == [(B, 1), (C, 1)]
        assert not hybrid.messages.changes(first.cursor)
        now = hybrid.messages.changes("now").cursor
    finally:
        go.set()
        thread.join(30)
    hybrid.messages.save(make_message(channel_id=B, message_id=2))
    for cursor in (first.cursor, now):
        assert ids(hybrid.messages.changes(cursor)) == [(A, 1), (B, 2)]
    assert ids(hybrid.messages.changes(start)) == [(A, 1), (B, 1), (C, 1), (B, 2)]


@pytest.mark.one_server
def test_pollers_beside_many_writers_get_each_change_once_and_in_order(hybrid: Hybrid) -> None:
    # Broken on purpose: with a cursor of one number for all channels, both pollers lost some; with
    # the cursor of the change that was read beyond the limit, the one with small pages did.
    writing = threading.Event()
    writing.set()
    with ThreadPoolExecutor(6) as threads:
        pollers = [threads.submit(poll, hybrid, writing, limit) for limit in (7, 1000)]
        writers = [threads.submit(write, hybrid, seed) for seed in range(4)]
        try:
            for each in writers:
                each.result(60)
        finally:
            writing.clear()
        found = [each.result(60) for each in pollers]
    told = run(hybrid, "SELECT channel_id, payload->>'version' FROM {s}.outbox ORDER BY id")
    committed = by_channel_of([(channel_id, int(version)) for channel_id, version in told])
    assert len(told) > 150
    for each in found:
        assert by_channel(each) == committed


@pytest.fixture
def story(hybrid: Hybrid) -> Hybrid:
    """Three channels with 9, 5 and 1 changes."""
    hybrid.messages.save_many(make_messages(8, channel_id=A))
    hybrid.messages.save_many(make_messages(5, channel_id=B))
    hybrid.messages.save(make_message(channel_id=C))
    hybrid.messages.delete(A, 3)
    return hybrid


@pytest.mark.one_server
def test_whoever_goes_on_from_any_cursor_gets_the_rest(story: Hybrid) -> None:
    # Broken on purpose: with the cursor of the change that was read beyond the limit, one of 15 was
    # missing.
    complete = by_channel(everything(story))
    for limit in (1, 2, 4, 15, 100):
        cursor, got = None, 0
        assert by_channel(everything(story, limit=limit)) == complete
        while True:
            assert len(everything(story, cursor)) == 15 - got
            page = story.messages.changes(cursor, limit=limit)
            assert len(page) == min(limit, 15 - got)
            versions = [each.version for each in page]
            assert versions == sorted(versions)
            got += len(page)
            assert page.more == (got < 15)
            if not page.more:
                break
            cursor = page.cursor


@pytest.mark.one_server
def test_a_busy_channel_keeps_no_other_one_waiting(hybrid: Hybrid) -> None:
    # Broken on purpose: ordered by channel alone, A was not told of before all of C.
    hybrid.messages.save_many(make_messages(5, channel_id=A))
    hybrid.messages.save_many(make_messages(50, channel_id=C))
    cursor = hybrid.messages.changes(limit=10).cursor
    hybrid.messages.save(make_message(9, channel_id=A))
    first = hybrid.messages.changes(cursor, limit=10)
    assert (A, 1) in ids(first)
    assert {each.key.channel_id for each in hybrid.messages.changes(first.cursor, limit=10)} == {C}


@pytest.mark.one_server
def test_channels_are_chosen_anew_with_every_call(story: Hybrid) -> None:
    page = story.messages.changes(channels=[B])
    assert ids(page) == [(B, n) for n in range(1, 6)]
    assert ids(story.messages.changes(page.cursor, channels=[C, B])) == [(C, 1)]
    rest = story.messages.changes(page.cursor)
    assert {each.key.channel_id for each in rest} == {A, C}
    story.messages.save(make_message(channel_id=B, message_id=6))
    assert ids(story.messages.changes(rest.cursor, channels=[A, C])) == []
    assert ids(story.messages.changes(rest.cursor, channels=[A, B])) == [(B, 6)]
    assert ids(story.messages.changes(channels=[])) == []


@pytest.mark.one_server
def test_now_is_behind_all_that_was_committed(story: Hybrid) -> None:
    now = story.messages.changes("now")
    assert not now
    assert not now.more
    only = story.messages.changes("now", channels=[C, -4]).cursor
    story.messages.save(make_message(channel_id=-4))
    story.messages.save(make_message(channel_id=-5))
    assert ids(story.messages.changes(now.cursor)) == [(-4, 1), (-5, 1)]
    assert ids(story.messages.changes(only, channels=[-4, C])) == [(-4, 1)]
    assert len(story.messages.changes(only)) == 9 + 5 + 2


def test_what_is_forgotten_and_was_not_read_is_an_error_and_never_a_gap(story: Hybrid) -> None:
    # Broken on purpose: without "behind", the second page followed on the first as if nothing had
    # been between them; without "begun", or from zero on, who began anew was behind at once.
    first = story.messages.changes(limit=3)
    end = story.messages.changes()
    chosen = story.messages.changes(channels=[B])
    run(story, "UPDATE {s}.message_changes SET changed_at = now() - interval '31 days'"
        " WHERE channel_id IN (:a, :c)", a=A, c=C)  # fmt: skip
    assert story.maintain().changes == 10
    assert story.maintain().changes == 0
    with pytest.raises(CursorExpired, match=r'changes\("now"\)') as caught:
        story.messages.changes(first.cursor)
    assert caught.value.channel_id in (A, C)
    with pytest.raises(CursorExpired):
        story.messages.changes(first.cursor, channels=[A])
    assert len(story.messages.changes(first.cursor, channels=[B])) == 3
    assert ids(story.messages.changes()) == [(B, n) for n in range(1, 6)]
    # One that had read all, or never asked for A, goes on: also where A has no row any more.
    for cursor in (end.cursor, story.messages.changes().cursor, chosen.cursor):
        assert ids(story.messages.changes(cursor)) == []
    story.messages.save(make_message(channel_id=A, message_id=99))
    for cursor in (end.cursor, story.messages.changes().cursor, chosen.cursor):
        assert ids(everything(story, cursor)) in ([(A, 99)], [])
    assert ids(everything(story, end.cursor)) == [(A, 99)]
    assert ids(everything(story, chosen.cursor)) == [(A, 99)]


@pytest.mark.one_server
def test_a_reader_of_all_misses_a_channel_that_came_and_went_only_with_an_error(
    story: Hybrid,
) -> None:
    end = story.messages.changes()
    story.messages.save(make_message(channel_id=-4))
    assert story.maintain(change_window=0.0).changes == 16
    with pytest.raises(CursorExpired, match="channel -4 "):
        story.messages.changes(end.cursor)
    assert not story.messages.changes(end.cursor, channels=[A, B, C])


def test_what_is_kept_has_no_gap_where_the_clock_was_set_back(hybrid: Hybrid) -> None:
    # Broken on purpose: without `WHERE NOT old` the younger change between two old ones went, too.
    hybrid.messages.save_many(make_messages(9, channel_id=A))
    run(hybrid, "UPDATE {s}.message_changes SET changed_at = now() - interval '31 days'"
        " WHERE message_id NOT IN (4, 7)")  # fmt: skip
    assert hybrid.maintain(batch=2, pause=0.0).changes == 3
    assert ids(hybrid.messages.changes()) == [(A, n) for n in range(4, 10)]


@pytest.mark.one_server
def test_a_message_that_is_no_longer_kept_is_a_change_without_a_message(hybrid: Hybrid) -> None:
    hybrid.messages.save_many(make_messages(3, channel_id=A))
    run(hybrid, "DELETE FROM {s}.messages WHERE message_id = 1")
    run(hybrid, "DELETE FROM {s}.message_keys WHERE message_id = 2")
    run(hybrid, "DELETE FROM {s}.messages WHERE message_id = 2")
    page = hybrid.messages.changes()
    assert [each.message is None for each in page] == [True, True, False]
    assert page.items[0].key == MessageKey(A, 1)
    assert not page.items[0].is_latest


@pytest.mark.one_server
def test_a_cursor_of_another_database_is_refused(story: Hybrid) -> None:
    # Broken on purpose: without "ahead" the poller would have waited in silence until the versions
    # had come as far.
    cursor = story.messages.changes().cursor
    run(story, "DELETE FROM {s}.message_changes WHERE channel_id = :c", c=C)
    run(story, "DELETE FROM {s}.channel_heads WHERE channel_id = :c", c=C)
    with pytest.raises(InvalidInput, match=f"cursor: channel {C} .* another database"):
        story.messages.changes(cursor)


@pytest.mark.one_server
def test_a_call_that_finds_nothing_is_one_statement(story: Hybrid) -> None:
    cursor = story.messages.changes().cursor
    with collected() as said:
        assert not story.messages.changes(cursor)
    assert len(said) == 1


# What a writer does between two calls of a reader: of which channel, and how.
STEPS = st.lists(
    st.tuples(
        st.sampled_from([A, B, C]), st.sampled_from(["save", "edit", "mark", "poll", "hold"])
    ),
    max_size=14,
)


@pytest.mark.one_server
@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(STEPS, st.integers(1, 4))
def test_whatever_writers_do_between_calls_is_told_once(
    hybrid: Hybrid, steps: list[tuple[int, str]], limit: int
) -> None:
    cursor = hybrid.messages.changes("now").cursor
    start, got, wrote = cursor, [], []
    fresh = fresh_ids(hybrid)
    held: dict[int, Any] = {}

    def finish(channel: int) -> None:
        if channel in held:
            wrote.extend(held.pop(channel)())

    for channel, step in steps:
        if step == "hold":
            # Through a pooler there are three connections to the server, and one is for the rest.
            if channel not in held and len(held) < 2:
                held[channel] = begun(
                    hybrid, make_message(channel_id=channel, message_id=next(fresh))
                )
            continue
        if step == "poll":
            page = hybrid.messages.changes(cursor, limit=limit)
            got += page
            cursor = page.cursor
            continue
        finish(channel)  # it holds the channel's lock
        message = make_message(channel_id=channel, message_id=next(fresh))
        wrote.append((channel, hybrid.messages.save(message).version))
        if step == "edit":
            wrote.append((channel, hybrid.messages.save(edited(message, "new", 1)).version))
        if step == "mark":
            wrote.append((channel, hybrid.messages.mark(*message.key, Status.FAILED).version))
    for channel in list(held):
        finish(channel)
    got += everything(hybrid, cursor, limit=limit)
    expected = by_channel_of(wrote)
    assert by_channel(got) == expected
    assert by_channel(everything(hybrid, start)) == expected
