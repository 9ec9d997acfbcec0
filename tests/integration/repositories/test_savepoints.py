"""What is rolled back to a savepoint was never written: nobody is told of it, nor the cache."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from telegram_hybrid import Hybrid, Status
from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.repositories.writing import Writer
from telegram_hybrid.testing import make_message, make_messages
from telegram_hybrid.testing.factories import CHANNEL_ID

pytestmark = pytest.mark.integration


def announced(hybrid: Hybrid) -> list[int]:
    with hybrid.engine.connect() as connection:
        schema = hybrid.settings.database_schema
        rows = connection.execute(text(f"SELECT message_id FROM {schema}.outbox ORDER BY id"))
        return [row.message_id for row in rows]


def test_neither_changes_nor_windows_show_what_was_rolled_back(hybrid: Hybrid) -> None:
    # Broken on purpose: without listening for the rollback, 2 and 4 were among the changes, and
    # the latest of the channel, patched at the commit, were 5, 4, 3, 2, 1.
    hybrid.messages.save(make_message(message_id=1))
    hybrid.messages.latest(CHANNEL_ID)
    with hybrid.transaction() as tx:
        abandoned = tx.connection.begin_nested()
        tx.messages.save(make_message(message_id=2))
        tx.messages.mark(CHANNEL_ID, 1, Status.QUEUED)
        abandoned.rollback()
        assert tx.changes == []
        with tx.connection.begin_nested():
            tx.messages.save(make_message(message_id=3))
            inner = tx.connection.begin_nested()
            tx.messages.save(make_message(message_id=4))
            inner.rollback()
        tx.messages.save(make_message(message_id=5))
        assert [change.key.message_id for change in tx.changes] == [3, 5]
    shown = hybrid.messages.latest(CHANNEL_ID)
    assert [each.message_id for each in shown] == [5, 3, 1]
    assert [each.status for each in shown] == [Status.RECEIVED] * 3
    assert announced(hybrid) == [1, 3, 5]


def test_a_window_is_not_patched_over_what_others_wrote_meanwhile(hybrid: Hybrid) -> None:
    # Broken on purpose: with the locks of before the rollback, nobody else of this thread could
    # save; with the heads of before, the commit told that nothing lies between 1 and 3.
    hybrid.messages.save(make_message(message_id=1))
    with hybrid.transaction() as tx:
        abandoned = tx.connection.begin_nested()
        tx.messages.save(make_message(message_id=9))
        abandoned.rollback()
        hybrid.messages.save(make_message(message_id=2))  # the rollback has freed the channel
        assert [each.message_id for each in hybrid.messages.latest(CHANNEL_ID)] == [2, 1]
        tx.messages.save(make_message(message_id=3))
        (write,) = tx.follow(Writer.writes)
        assert write.previous == hybrid.messages.get(CHANNEL_ID, 2).version
    assert [each.message_id for each in hybrid.messages.latest(CHANNEL_ID)] == [3, 2, 1]


def test_a_failed_transaction_goes_on_behind_its_savepoint(hybrid: Hybrid) -> None:
    # Broken on purpose: with steps that wait behind savepoints, the last was refused at its end.
    today = datetime.now(UTC) - timedelta(hours=1)  # of nothing that may be compressed, steps wait
    hybrid.messages.save_many(attrs.evolve(each, sent_at=today) for each in make_messages(4))
    forbid = f"DELETE FROM {hybrid.settings.database_schema}.status_transitions"
    with hybrid.transaction() as tx:
        tx.messages.mark(CHANNEL_ID, 1, Status.QUEUED)
        failing = tx.connection.begin_nested()
        tx.messages.mark(CHANNEL_ID, 2, Status.QUEUED)
        with pytest.raises(DBAPIError):
            tx.connection.execute(text("SELECT 1 / 0"))
        failing.rollback()
        with pytest.raises(DBAPIError, match="cannot become queued"):  # noqa: SIM117
            with tx.connection.begin_nested():
                tx.connection.execute(text(f"{forbid} WHERE next = 'queued'"))
                tx.messages.mark(CHANNEL_ID, 3, Status.QUEUED)
        tx.messages.mark(CHANNEL_ID, 4, Status.QUEUED)
        assert [change.key.message_id for change in tx.changes] == [1, 4]
    found = hybrid.messages.get_many(CHANNEL_ID, range(1, 5))
    marked = [number for number, each in sorted(found.items()) if each.status is Status.QUEUED]
    assert marked == [1, 4]
    assert announced(hybrid)[-2:] == [1, 4]


def test_a_savepoint_whose_release_was_refused_is_still_there(hybrid: Hybrid) -> None:
    # Broken on purpose: taken for released, as it was before it ran, its rollback meant nothing: 2
    # was shown, and counted as seen, though it was never stored.
    hybrid.messages.save(make_message(message_id=1))
    hybrid.messages.latest(CHANNEL_ID)
    with hybrid.transaction() as tx:
        tx.connection.execute(text("SAVEPOINT a"))
        tx.messages.save(make_message(message_id=2))
        with pytest.raises(DBAPIError):
            tx.connection.execute(text("SELECT 1 / 0"))
        with pytest.raises(DBAPIError, match="aborted"):
            tx.connection.execute(text("RELEASE a"))
        tx.connection.execute(text("/* back */ ROLLBACK TO a"))
        assert tx.changes == []
        tx.messages.save(make_message(message_id=3))
    assert [each.message_id for each in hybrid.messages.latest(CHANNEL_ID)] == [3, 1]
    assert hybrid.messages.seen(CHANNEL_ID, [2]) == set()


@pytest.mark.parametrize("statement", ["ROLLBACK", "COMMIT"])
def test_a_transaction_is_not_ended_by_a_statement(hybrid: Hybrid, statement: str) -> None:
    # Broken on purpose: let pass, a ROLLBACK left 2 among the latest, though it was not stored.
    hybrid.messages.save(make_message(message_id=1))
    hybrid.messages.latest(CHANNEL_ID)
    with pytest.raises(InvalidInput, match="ends with its block"), hybrid.transaction() as tx:
        tx.messages.save(make_message(message_id=2))
        tx.connection.execute(text(statement))
    assert [each.message_id for each in hybrid.messages.latest(CHANNEL_ID)] == [1]
    assert announced(hybrid) == [1]
