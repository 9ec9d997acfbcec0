"""Stale answers: only for who allows them, marked, and never in the way of the present value.

Broken on purpose and seen to fail: `last` that does not mark; a read that answers with it unasked;
a refresh that is not begun; an error that is swallowed where nothing is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import attrs
import pytest

from telegram_hybrid import Hybrid, connect
from telegram_hybrid.errors import DatabaseUnavailable
from telegram_hybrid.model import Message
from telegram_hybrid.testing import make_message, make_messages
from telegram_hybrid.testing.factories import CHANNEL_ID


@pytest.fixture
def keeping(hybrid: Hybrid) -> Iterator[Hybrid]:
    with connect(attrs.evolve(hybrid.settings, cache_keep_last=60.0)) as other:
        yield other


@pytest.fixture
def cut_off(keeping: Hybrid) -> Iterator[Hybrid]:
    """The same Redis, and a database where nobody answers."""
    nowhere = "postgresql://ann@127.0.0.1:1/nowhere"
    settings = attrs.evolve(keeping.settings, database_url=nowhere, connect_timeout=0.2)
    with connect(settings) as other:
        yield other


def edit(hybrid: Hybrid, message: Message, text: str) -> None:
    later = message.sent_at + timedelta(minutes=1)
    hybrid.messages.save(attrs.evolve(message, text=text, edited_at=later))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_last_known_message_answers_while_the_database_is_out_of_reach(
    keeping: Hybrid, cut_off: Hybrid
) -> None:
    message = make_message(text="before")
    keeping.messages.save(message)
    keeping.messages.get(*message.key)
    fresh = cut_off.messages.get(*message.key, stale_if_error=True)
    assert (fresh.text, fresh.stale) == ("before", False), "a hit is no stale answer"
    edit(keeping, message, "after")
    with pytest.raises(DatabaseUnavailable):
        cut_off.messages.get(*message.key)
    known = cut_off.messages.get(*message.key, stale_if_error=True)
    assert (known.text, known.stale) == ("before", True)
    assert cut_off.cache.stats().stale == 1
    keeping.messages.get(*message.key)
    fresh = cut_off.messages.get(*message.key, stale_if_error=True)
    assert (fresh.text, fresh.stale) == ("after", False)


def test_the_last_known_window_answers_while_the_database_is_out_of_reach(
    keeping: Hybrid, cut_off: Hybrid
) -> None:
    keeping.messages.save_many(make_messages(5))
    keeping.messages.latest(CHANNEL_ID, limit=3)
    keeping.messages.save_many(make_messages(150, first_id=6))
    with pytest.raises(DatabaseUnavailable):
        cut_off.messages.latest(CHANNEL_ID, limit=3)
    known = cut_off.messages.latest(CHANNEL_ID, limit=3, stale_if_error=True)
    assert [(each.message_id, each.stale) for each in known] == [(5, True), (4, True), (3, True)]


def test_what_nobody_knows_is_an_error_all_the_same(cut_off: Hybrid) -> None:
    for options in ({"stale_if_error": True}, {"stale_while_revalidate": True}):
        with pytest.raises(DatabaseUnavailable):
            cut_off.messages.get(CHANNEL_ID, 99, **options)
    with pytest.raises(DatabaseUnavailable):
        cut_off.messages.latest(CHANNEL_ID, stale_if_error=True)


def test_a_stale_answer_comes_at_once_and_the_present_one_soon(keeping: Hybrid) -> None:
    message = make_message(text="before")
    keeping.messages.save(message)
    keeping.messages.get(*message.key)
    edit(keeping, message, "after")
    known = keeping.messages.get(*message.key, stale_while_revalidate=True)
    assert (known.text, known.stale) == ("before", True)

    def is_fresh() -> bool:
        found = keeping.messages.get(*message.key, stale_while_revalidate=True)
        return not found.stale and found.text == "after"

    until(is_fresh)


def test_nothing_is_remembered_unless_it_was_set(hybrid: Hybrid) -> None:
    message = make_message(text="before")
    hybrid.messages.save(message)
    hybrid.messages.get(*message.key)
    edit(hybrid, message, "after")
    allowed = {"stale_if_error": True, "stale_while_revalidate": True}
    found = hybrid.messages.get(*message.key, **allowed)
    assert (found.text, found.stale) == ("after", False)


def test_stale_is_in_no_json_and_takes_no_part_in_equality() -> None:
    message = make_message()
    stale = attrs.evolve(message, stale=True)
    assert stale == message
    assert stale.to_json() == message.to_json()
    assert Message.from_json(stale.to_json()).stale is False
