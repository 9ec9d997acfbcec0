"""A content that is said again is as new as that: of every order of arrival the newest stands."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import attrs
import pytest
from sqlalchemy import text
from statements import collected

from telegram_hybrid import Hybrid, Message, Outcome, SaveCounts
from telegram_hybrid.testing import make_message
from telegram_hybrid.testing.factories import CHANNEL_ID

pytestmark = pytest.mark.integration

SENT = datetime(2026, 5, 4, 12, tzinfo=UTC)
#: Texts, and the minutes of their edits, in the order in which they were said.
HISTORIES = {
    "there and back": [("A", None), ("B", 1), ("A", 2)],
    "and on and back again": [("A", None), ("B", 1), ("A", 2), ("C", 3), ("B", 4)],
}
UPSERT = """
SELECT "{s}".upsert_message(:channel_id, number, :sent_at, words, edited_at => edited)
FROM unnest(CAST(:numbers AS bigint[]), CAST(:texts AS text[]), CAST(:times AS timestamptz[]))
    AS post (number, words, edited)
"""


def said(number: int, content: str, minute: float | None) -> Message:
    at = None if minute is None else SENT + timedelta(minutes=minute)
    return make_message(message_id=number, sent_at=SENT, text=content, edited_at=at)


def ask(hybrid: Hybrid, query: str, **values: Any) -> list[Any]:
    with hybrid.engine.begin() as connection:
        schema = hybrid.settings.database_schema
        return list(connection.execute(text(query.replace("{s}", schema)), values))


def in_batches(hybrid: Hybrid, steps: Sequence[Sequence[Message]]) -> None:
    for step in steps:
        hybrid.messages.save_many(step)


def in_one_batch(hybrid: Hybrid, steps: Sequence[Sequence[Message]]) -> None:
    with hybrid.transaction() as tx:
        tx.messages.save_batch([message for step in steps for message in step])


def by_psql(hybrid: Hybrid, steps: Sequence[Sequence[Message]]) -> None:
    for step in steps:
        ask(
            hybrid,
            UPSERT,
            channel_id=CHANNEL_ID,
            sent_at=SENT,
            numbers=[message.message_id for message in step],
            texts=[message.text for message in step],
            times=[message.edited_at for message in step],
        )


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
@pytest.mark.parametrize("save", [in_batches, in_one_batch, by_psql])
def test_in_every_order_of_arrival_the_newest_text_stands(
    hybrid: Hybrid, history: list[tuple[str, int | None]], save: Callable[..., None]
) -> None:
    # Broken on purpose: with `compare` told no `said_at`, with no time noted, with the times noted
    # behind the last wave of a batch, and with upsert_message of before revision 0025: B stood
    # where it came last.
    orders = [*permutations(history)]
    steps = [
        [said(number, *order[step]) for number, order in enumerate(orders)]
        for step in range(len(history))
    ]
    save(hybrid, steps)
    check(hybrid, history, len(orders))
    again = [message for step in steps for message in step]
    chance = random.Random(4)
    save(hybrid, [chance.sample(again, len(again) // 2)])
    check(hybrid, history, len(orders))


def check(hybrid: Hybrid, history: list[tuple[str, int | None]], count: int) -> None:
    """The newest text is stored, and every earlier one a revision, of each of the messages."""
    newest = history[-1][0]
    stored = hybrid.messages.get_many(CHANNEL_ID, range(count))
    assert {number: message.text for number, message in stored.items()} == dict.fromkeys(
        range(count), newest
    )
    rows = ask(hybrid, 'SELECT DISTINCT message_id, text FROM "{s}".message_revisions')
    kept = {number: {newest} for number in range(count)}
    for number, content in rows:
        kept[number].add(content)
    assert kept == {number: {content for content, _ in history} for number in range(count)}


def test_what_is_said_again_is_no_change(hybrid: Hybrid) -> None:
    # Broken on purpose: with the new time written to the message, as `edited_at`.
    first = said(1, "A", None)
    version = hybrid.messages.save(first).version
    before = hybrid.messages.changes()
    for minute in (2, 3, 1):
        saved = hybrid.messages.save(said(1, "A", minute))
        assert (saved.outcome, saved.version) == (Outcome.DUPLICATE, version)
    assert hybrid.messages.get(CHANNEL_ID, 1) == first
    assert hybrid.messages.revisions(CHANNEL_ID, 1) == []
    assert list(hybrid.messages.changes(before.cursor)) == []
    ((count,),) = ask(hybrid, 'SELECT count(*) FROM "{s}".outbox')
    assert count == 1
    ((at,),) = ask(hybrid, 'SELECT said_at FROM "{s}".message_confirmations')
    assert at == SENT + timedelta(minutes=3)


def test_what_is_said_again_of_a_deleted_message_leaves_it_deleted(hybrid: Hybrid) -> None:
    hybrid.messages.save(said(1, "A", None))
    hybrid.messages.delete(CHANNEL_ID, 1)
    later = [said(1, "A", 2), said(1, "B", 1)]
    assert hybrid.messages.save_many(later) == SaveCounts(duplicates=2)
    assert hybrid.messages.get(CHANNEL_ID, 1) is None
    assert hybrid.messages.restore(CHANNEL_ID, 1).text == "A"
    assert [each.text for each in hybrid.messages.revisions(CHANNEL_ID, 1)] == ["B"]


def test_the_times_of_many_are_noted_by_one_statement(hybrid: Hybrid) -> None:
    # Broken on purpose: with a statement for each.
    messages = [said(number, "A", None) for number in range(20)]
    hybrid.messages.save_many(messages)
    with collected() as statements:
        hybrid.messages.save_many(attrs.evolve(each, edited_at=SENT) for each in messages)
    assert len([each for each in statements if each.lstrip().startswith("INSERT")]) == 1
    with collected() as statements:
        hybrid.messages.save_many(attrs.evolve(each, edited_at=SENT) for each in messages)
    assert not any(each.lstrip().startswith("INSERT") for each in statements)
