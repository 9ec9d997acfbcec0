"""What follows an old message comes from sealed pages, complete or from the database (P6)."""

from __future__ import annotations

import random
from datetime import timedelta

import attrs
import pytest
from sqlalchemy import text

from telegram_hybrid import Hybrid
from telegram_hybrid.model import Message
from telegram_hybrid.schema.redis.values import PAGE
from telegram_hybrid.testing import make_message, make_messages
from telegram_hybrid.testing.factories import CHANNEL_ID

pytestmark = pytest.mark.integration


def ids(messages: list[Message]) -> list[int]:
    return [message.message_id for message in messages]


def test_a_poller_that_lags_behind_is_answered_by_pages_without_the_database(
    hybrid: Hybrid,
) -> None:
    hybrid.messages.save_many(make_messages(3 * PAGE))
    everything = list(range(1, 3 * PAGE + 1))
    expected = everything[10:110]
    assert ids(hybrid.messages.after(CHANNEL_ID, message_id=10)) == expected
    with hybrid.engine.begin() as connection:
        # Nobody who asks the database finds anything now.
        connection.execute(text(f"DELETE FROM {hybrid.settings.database_schema}.message_keys"))
    assert ids(hybrid.messages.after(CHANNEL_ID, message_id=10)) == expected


@pytest.mark.parametrize("newest", [399, 400])
@pytest.mark.one_plain_server  # about the cache
def test_no_place_of_a_channel_is_beyond_window_and_pages(hybrid: Hybrid, newest: int) -> None:
    # Broken on purpose: with pages of 256 ids, those of the last one that the window lacks.
    hybrid.messages.save_many(make_messages(newest))
    places = range(0, newest, 11)
    expected = {place: list(range(place + 1, newest + 1))[:100] for place in places}
    for place in places:
        hybrid.messages.after(CHANNEL_ID, message_id=place)
    with hybrid.engine.begin() as connection:
        connection.execute(text(f"DELETE FROM {hybrid.settings.database_schema}.message_keys"))
    for place in places:
        found = hybrid.messages.after(CHANNEL_ID, message_id=place)
        assert ids(found) == expected[place], place


def test_pages_follow_edits_deletions_and_late_messages(hybrid: Hybrid) -> None:
    # Broken on purpose: without pages among what a write makes stale, each step fails.
    messages = make_messages(3 * PAGE)
    late = messages.pop(20)
    hybrid.messages.save_many(messages)
    after = 5

    def page() -> list[Message]:
        return hybrid.messages.after(CHANNEL_ID, message_id=after, limit=50)

    assert late.message_id not in ids(page())
    hybrid.messages.save(late)
    assert ids(page()) == list(range(6, 56))
    hybrid.messages.delete(CHANNEL_ID, 30)
    assert 30 not in ids(page())
    edited_at = late.sent_at + timedelta(minutes=1)
    hybrid.messages.save(attrs.evolve(late, text="edited", edited_at=edited_at))
    assert next(m.text for m in page() if m.message_id == late.message_id) == "edited"


def test_sparse_channels_are_complete_over_empty_pages(hybrid: Hybrid) -> None:
    numbers = [3, 2 * PAGE, 5 * PAGE - 1, 5 * PAGE, 9 * PAGE, 40 * PAGE + 7]
    numbers += range(41 * PAGE, 41 * PAGE + 200)
    hybrid.messages.save_many(make_message(message_id=number) for number in numbers)
    for _ in range(2):
        for after in (0, 3, PAGE, 5 * PAGE - 1, 39 * PAGE, 41 * PAGE + 150):
            for limit in (1, 3, 100, 300):
                expected = [number for number in numbers if number > after][:limit]
                found = hybrid.messages.after(CHANNEL_ID, message_id=after, limit=limit)
                assert ids(found) == expected, (after, limit)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.one_plain_server  # about the cache
def test_any_history_reads_as_the_database_has_it(hybrid: Hybrid, seed: int) -> None:
    # Broken on purpose: a patch that puts new messages last, and one that ignores deletions.
    chance = random.Random(seed)
    stored: dict[int, Message] = {}
    deleted: set[int] = set()
    top = 400
    for step in range(150):
        number = chance.choice([top + 1, chance.randrange(top + 1), top + chance.randrange(9)])
        action = chance.random()
        if number not in stored:
            stored[number] = make_message(message_id=number, text=f"first {step}")
            hybrid.messages.save(stored[number])
            top = max(top, number)
        elif action < 0.3:
            hybrid.messages.delete(CHANNEL_ID, number)
            deleted.add(number)
        else:
            edited_at = stored[number].sent_at + timedelta(seconds=step + 1)
            stored[number] = attrs.evolve(
                stored[number], text=f'edit {step} "message_id":5,\n', edited_at=edited_at
            )
            hybrid.messages.save(stored[number])
        alive = [stored[one].text for one in sorted(stored) if one not in deleted]
        newest = hybrid.messages.latest(CHANNEL_ID, limit=chance.choice([1, 5, 50]))
        assert [one.text for one in newest] == alive[::-1][: len(newest)]
        assert len(newest) == min(len(alive), 50) or len(newest) in (1, 5)
        begin = chance.randrange(top)
        following = hybrid.messages.after(CHANNEL_ID, message_id=begin, limit=30)
        expected = [one for one in sorted(stored) if one > begin and one not in deleted][:30]
        assert ids(following) == expected
    assert hybrid.cache.stats().hits > 150, "most of it was answered by the cache"
