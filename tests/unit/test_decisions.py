"""Decisions about a message that is stored already, without any store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import permutations, product

import attrs
import pytest

from telegram_hybrid import Entity, Media, Message, Status
from telegram_hybrid.errors import IllegalTransition
from telegram_hybrid.repositories.decisions import Verdict, check_transition, compare
from telegram_hybrid.testing import make_message

STORED = attrs.evolve(
    make_message(message_id=1, text="BUY"),
    edited_at=make_message(message_id=1).sent_at + timedelta(minutes=5),
)
BOLD = (Entity(type="bold", offset=0, length=3),)


def at(minutes: float | None, **changes: object) -> Message:
    edited_at = None if minutes is None else STORED.sent_at + timedelta(minutes=minutes)
    return attrs.evolve(STORED, edited_at=edited_at, **changes)


@pytest.mark.parametrize(
    ("incoming", "verdict"),
    [
        (at(5), Verdict.DUPLICATE),
        (at(None), Verdict.DUPLICATE),
        (at(9), Verdict.CONFIRMED),  # a reaction, or an edit back to this text
        (at(9, metadata={"views": 7}), Verdict.CONFIRMED),
        (at(9, text="SELL"), Verdict.EDIT),
        (at(9, caption="SELL"), Verdict.EDIT),
        (at(9, media=(Media(type="photo"),)), Verdict.EDIT),
        (at(9, entities=BOLD), Verdict.EDIT),
        (at(5, text="SELL"), Verdict.EDIT),  # two edits within one second
        (at(5, entities=BOLD), Verdict.DUPLICATE),  # as another source describes it
        (at(1, text="SELL"), Verdict.LATE),
        (at(None, text="SELL"), Verdict.LATE),
        (at(1, entities=BOLD), Verdict.DUPLICATE),
    ],
)
def test_content_and_time_of_edit_decide(incoming: Message, verdict: Verdict) -> None:
    assert compare(STORED, incoming) is verdict


@pytest.mark.parametrize(
    ("incoming", "verdict"),
    [
        (at(6), Verdict.DUPLICATE),
        (at(8), Verdict.DUPLICATE),
        (at(9), Verdict.CONFIRMED),
        (at(6, text="SELL"), Verdict.LATE),
        (at(6, entities=BOLD), Verdict.DUPLICATE),
        (at(8, text="SELL"), Verdict.EDIT),
        (at(8, entities=BOLD), Verdict.DUPLICATE),
        (at(9, text="SELL"), Verdict.EDIT),
        (at(9, entities=BOLD), Verdict.EDIT),
    ],
)
def test_what_was_said_again_is_as_new_as_that(incoming: Message, verdict: Verdict) -> None:
    assert compare(STORED, incoming, at(8).edited_at) is verdict


def test_a_time_before_the_stored_ones_own_says_nothing() -> None:
    # Broken on purpose: with `said_at or stored.edited_at` the first two were edits.
    early = at(1).edited_at
    assert compare(STORED, at(2, text="SELL"), early) is Verdict.LATE
    assert compare(STORED, at(2), early) is Verdict.DUPLICATE
    assert compare(STORED, at(6, text="SELL"), early) is Verdict.EDIT


def test_in_whatever_order_a_history_arrives_its_newest_text_stands() -> None:
    # Every history of four edits between three texts, in every order, and one of them again.
    # Broken on purpose: without `said_at` A, B, A arriving as A, A, B left B.
    told = {
        (number, words): at(number if number else None, text=words)
        for number in range(4)
        for words in "ABC"
    }
    for said, order in product(product("ABC", repeat=4), permutations(range(4))):
        for again in ((), *((number,) for number in range(4))):
            arriving = [told[number, said[number]] for number in (*order, *again)]
            newest, earlier = after(arriving)
            assert newest == said[-1], (said, order, again)
            assert earlier | {newest} == set(said), (said, order, again)


def after(arriving: Sequence[Message]) -> tuple[str, set[str]]:
    """What is stored then, and what was kept beside it, when each is treated as `compare` says."""
    stored, *others = arriving
    said_at: datetime | None = None
    kept = set()
    for incoming in others:
        verdict = compare(stored, incoming, said_at)
        if verdict is Verdict.EDIT:
            kept.add(stored.text)
            stored = incoming
        elif verdict is Verdict.LATE:
            kept.add(incoming.text)
        elif verdict is Verdict.CONFIRMED:
            said_at = incoming.edited_at
    return stored.text, kept


def test_comparing_a_message_with_itself_is_a_duplicate() -> None:
    assert compare(STORED, STORED) is Verdict.DUPLICATE


def test_no_status_leads_back_to_received() -> None:
    for status in set(Status) - {Status.RECEIVED}:
        with pytest.raises(IllegalTransition):
            check_transition(attrs.evolve(STORED, status=status), Status.RECEIVED)


def test_nothing_follows_deleted() -> None:
    deleted = attrs.evolve(STORED, status=Status.DELETED)
    for status in set(Status) - {Status.DELETED}:
        with pytest.raises(IllegalTransition, match="can become nothing"):
            check_transition(deleted, status)


@pytest.mark.parametrize("status", list(Status))
def test_a_status_that_is_there_already_changes_nothing(status: Status) -> None:
    assert check_transition(attrs.evolve(STORED, status=status), status) is False
