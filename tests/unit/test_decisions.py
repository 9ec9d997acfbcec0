"""Decisions about a message that is stored already, without any store."""

from __future__ import annotations

from datetime import timedelta

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
        (at(9), Verdict.DUPLICATE),  # a reaction
        (at(9, metadata={"views": 7}), Verdict.DUPLICATE),
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
