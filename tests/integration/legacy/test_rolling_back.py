"""Rolling back: what was brought goes, and nothing else."""

from __future__ import annotations

import originals
import pytest

from telegram_hybrid import Hybrid, Outcome, Status, legacy
from telegram_hybrid.errors import NotFound
from telegram_hybrid.testing import make_message

from .conftest import Dump, Original

pytestmark = [pytest.mark.integration, pytest.mark.one_server]

FIRST = originals.CHANNELS[0]


def test_what_was_changed_since_stays_with_its_history(hybrid: Hybrid, original: Original) -> None:
    # Broken on purpose: removing by key alone took the marked, the edited and the deleted one.
    for number in range(1, 6):
        original.insert(message_id=number, text=f"post {number}")
    legacy.migrate(hybrid, original.url, schema=original.schema)
    hybrid.messages.mark(FIRST, 1, Status.QUEUED)
    edit = make_message(channel_id=FIRST, message_id=2, text="edited")
    assert hybrid.messages.save(edit).outcome is Outcome.EDITED
    hybrid.messages.delete(FIRST, 3)
    hybrid.messages.save(make_message(channel_id=FIRST, message_id=99))
    removed = legacy.rollback(hybrid)
    assert (removed.messages, removed.stayed, removed.channels) == (2, 3, 0)
    kept = hybrid.messages.after(FIRST, include_deleted=True)
    assert [each.message_id for each in kept] == [1, 2, 3, 99]
    assert [each.text for each in hybrid.messages.revisions(FIRST, 2)] == ["post 2"]
    assert hybrid.channels.get(FIRST) is not None


def test_caches_learn_that_messages_are_gone(hybrid: Hybrid, original: Original) -> None:
    # Broken on purpose: without forget_seen, the message was "seen" for two hours.
    original.insert(message_id=7)
    legacy.migrate(hybrid, original.url, schema=original.schema)
    for _ in range(2):
        assert hybrid.messages.seen(FIRST, [7]) == {7}
        assert hybrid.messages.get(FIRST, 7) is not None
        assert len(hybrid.messages.latest(FIRST)) == 1
    assert legacy.rollback(hybrid).told
    assert hybrid.messages.seen(FIRST, [7]) == set()
    assert hybrid.messages.get(FIRST, 7) is None
    assert hybrid.messages.latest(FIRST) == []


def test_one_source_of_several_is_named(hybrid: Hybrid, original: Original, dump: Dump) -> None:
    original.insert(message_id=7)
    first = legacy.migrate(hybrid, original.url, schema=original.schema)
    before = dump()
    other = f"{original.schema}_too"
    originals.build(original.connection, other)
    try:
        original.ask(f"INSERT INTO {other}.messages SELECT * FROM {{old}}.messages")
        original.ask(f"UPDATE {other}.messages SET message_id = 8")
        second = legacy.migrate(hybrid, original.url, schema=other)
        with pytest.raises(NotFound, match=first.source):
            legacy.rollback(hybrid, source="elsewhere")
        assert legacy.rollback(hybrid, source=second.source).messages == 1
        assert dump() == before
    finally:
        original.ask(f"DROP SCHEMA {other} CASCADE")


def test_a_rollback_that_was_cut_short_is_run_again(
    hybrid: Hybrid, original: Original, dump: Dump
) -> None:
    before = dump()
    originals.fill(original.connection, original.schema, 900)
    legacy.migrate(hybrid, original.url, schema=original.schema)

    def crash(_stage: str, _done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        legacy.rollback(hybrid, told=crash)
    assert legacy.rollback(hybrid).messages == 600
    assert dump() == before
