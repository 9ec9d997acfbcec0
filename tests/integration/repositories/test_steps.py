"""Steps wait for more of their kind, and nobody who says anything in the transaction can tell."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from statements import collected

from telegram_hybrid import Event, Hybrid, Message, Status
from telegram_hybrid.errors import DatabaseError, IllegalTransition, WriteConflict
from telegram_hybrid.observe import traces
from telegram_hybrid.outbox import rows as outbox_rows
from telegram_hybrid.outbox.locks import lock_channels
from telegram_hybrid.repositories import writing
from telegram_hybrid.repositories.steps import Steps
from telegram_hybrid.testing import make_message, make_messages
from telegram_hybrid.testing.factories import CHANNEL_ID

pytestmark = pytest.mark.integration
OTHER = CHANNEL_ID - 1


def statuses(hybrid: Hybrid) -> dict[int, Status]:
    """As PostgreSQL has them, by id."""
    rows = []
    with hybrid.engine.connect() as connection:
        schema = hybrid.settings.database_schema
        rows = list(connection.execute(text(f"SELECT message_id, status FROM {schema}.messages")))
    return {row.message_id: Status(row.status) for row in rows}


def outbox(hybrid: Hybrid, columns: str) -> list[tuple[object, ...]]:
    with hybrid.engine.connect() as connection:
        schema = hybrid.settings.database_schema
        rows = connection.execute(text(f"SELECT {columns} FROM {schema}.outbox ORDER BY id"))
        return [tuple(row) for row in rows]


def saved(hybrid: Hybrid, *messages: Message) -> None:
    """Store them as of today, as nothing that may be compressed, and forget their events."""
    today = datetime.now(UTC) - timedelta(hours=1)
    hybrid.messages.save_many(
        attrs.evolve(each, sent_at=today + timedelta(seconds=each.message_id)) for each in messages
    )
    with hybrid.engine.begin() as connection:
        connection.execute(text(f"DELETE FROM {hybrid.settings.database_schema}.outbox"))


def test_the_steps_of_a_transaction_are_written_together(hybrid: Hybrid) -> None:
    # Broken on purpose: with `at_once` for all, each has three statements of its own.
    here = make_messages(10)
    there = [make_message(channel_id=OTHER, message_id=100 + n) for n in range(10)]
    saved(hybrid, *here, *there)
    with collected() as said, hybrid.transaction() as tx:
        for message in here:
            tx.messages.mark(*message.key, Status.QUEUED, reason=f"{message.message_id}")
        for message in there:
            tx.messages.delete(*message.key, reason=f"{message.message_id}")
    names = ("lock_messages", "mark_messages", "append_changes")
    assert [sum(name in each for each in said) for name in names] == [20, 1, 1]
    for message in here:
        stored = hybrid.messages.get(*message.key)
        assert (stored.status, stored.status_reason) == (Status.QUEUED, f"{message.message_id}")
    for message in there:
        stored = hybrid.messages.get(*message.key, include_deleted=True)
        assert (stored.status, stored.delete_reason) == (Status.DELETED, f"{message.message_id}")
    assert [number for (number,) in outbox(hybrid, "message_id")] == [
        *(message.message_id for message in here + there)
    ]


def test_whatever_is_said_in_the_transaction_sees_them(hybrid: Hybrid) -> None:
    # Broken on purpose: without paying in `wait`, each of these saw "received"; by paying where
    # cursors are made, what an older one asks and what psycopg says by itself did.
    saved(hybrid, *make_messages(6))
    schema = hybrid.settings.database_schema
    question = f"SELECT status FROM {schema}.messages WHERE message_id = "
    with hybrid.transaction() as tx:
        tx.messages.mark(CHANNEL_ID, 1, Status.QUEUED)
        assert tx.connection.execute(text(f"{question} 1")).scalar_one() == "queued"
        tx.messages.mark(CHANNEL_ID, 2, Status.QUEUED)
        driver = tx.connection.connection.driver_connection
        assert driver.execute(f"{question} 2").fetchone() == ("queued",)
        tx.messages.mark(CHANNEL_ID, 3, Status.QUEUED)
        assert tx.messages.get(CHANNEL_ID, 3).status is Status.QUEUED
        older = driver.cursor()
        tx.messages.mark(CHANNEL_ID, 5, Status.QUEUED)
        assert older.execute(f"{question} 5").fetchone() == ("queued",)
        tx.messages.mark(CHANNEL_ID, 6, Status.QUEUED)
        with driver.transaction(force_rollback=True):
            pass
        assert older.execute(f"{question} 6").fetchone() == ("queued",)
        tx.messages.mark(CHANNEL_ID, 4, Status.QUEUED)
        driver.commit()  # what nobody should do, and loses nothing
        driver.rollback()
        assert statuses(hybrid)[4] is Status.QUEUED


def test_nothing_is_committed_without_steps_that_could_not_be_written(
    hybrid: Hybrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Broken on purpose: without `_lost`, what was saved before was committed without the mark.
    saved(hybrid, make_message(message_id=1))

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(DatabaseError, match="were not written"), hybrid.transaction() as tx:
        tx.messages.save(make_message(message_id=2))
        tx.messages.mark(CHANNEL_ID, 1, Status.QUEUED)
        with monkeypatch.context() as patch:
            patch.setattr(outbox_rows, "append", interrupted)
            with pytest.raises(KeyboardInterrupt):
                tx.messages.save(make_message(message_id=3))
    assert statuses(hybrid) == {1: Status.RECEIVED}
    hybrid.messages.mark(CHANNEL_ID, 1, Status.QUEUED)
    assert statuses(hybrid) == {1: Status.QUEUED}


def test_an_edit_is_not_committed_without_its_event(
    hybrid: Hybrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Broken on purpose: without `torn`, the text was changed, and neither event nor cache told.
    hybrid.messages.save(message := make_message(message_id=1))

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    later = attrs.evolve(message, text="later", edited_at=datetime.now(UTC))
    with pytest.raises(DatabaseError, match="were not written"), hybrid.transaction() as tx:
        tx.messages.seen(CHANNEL_ID, [1])
        with monkeypatch.context() as patch:
            patch.setattr(outbox_rows, "append", interrupted)
            with pytest.raises(KeyboardInterrupt):
                tx.messages.save(later)
    with hybrid.transaction() as tx:
        with monkeypatch.context() as patch:
            patch.setattr(outbox_rows, "append", interrupted)
            with pytest.raises(KeyboardInterrupt), tx.connection.begin_nested():
                tx.messages.save(later)
        assert tx.changes == []
        assert tx.messages.get(*message.key).text == message.text  # and the transaction goes on


def test_steps_are_owed_until_they_are_being_written(
    hybrid: Hybrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Broken on purpose: forgotten before it is paid, who asks after an interruption is told
    # "received", and the edit's event told it after the mark's.
    saved(hybrid, message := make_message(message_id=1))
    settle, calls = Steps.settle, iter([KeyboardInterrupt])

    def interrupted(steps: Steps) -> None:
        for error in calls:
            raise error
        settle(steps)

    monkeypatch.setattr(Steps, "settle", interrupted)
    with hybrid.transaction() as tx:
        tx.messages.mark(*message.key, Status.QUEUED)
        with pytest.raises(KeyboardInterrupt):
            tx.messages.get(*message.key)
        assert tx.messages.get(*message.key).status is Status.QUEUED


def test_a_step_that_was_only_counted_is_not_committed(
    hybrid: Hybrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Broken on purpose: without `torn`, the window was patched with a mark that was never written.
    saved(hybrid, *make_messages(2))
    hybrid.messages.latest(CHANNEL_ID)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(DatabaseError, match="were not written"), hybrid.transaction() as tx:
        tx.messages.mark(CHANNEL_ID, 1, Status.QUEUED)
        with monkeypatch.context() as patch:
            patch.setattr(writing, "Step", interrupted)
            with pytest.raises(KeyboardInterrupt):
                tx.messages.mark(CHANNEL_ID, 2, Status.QUEUED)
    assert {each.status for each in hybrid.messages.latest(CHANNEL_ID)} == {Status.RECEIVED}


def test_a_message_may_take_several_steps_in_one_transaction(hybrid: Hybrid) -> None:
    # Broken on purpose: `find` that leaves them waiting reads "received", and writes one twice.
    saved(hybrid, make_message(message_id=1))
    with hybrid.transaction() as tx:
        for status in (Status.QUEUED, Status.RETRYING, Status.PUBLISHED):
            tx.messages.mark(CHANNEL_ID, 1, status)
        with pytest.raises(IllegalTransition):
            tx.messages.mark(CHANNEL_ID, 1, Status.QUEUED)
        assert tx.messages.delete(CHANNEL_ID, 1)
        restored = tx.messages.restore(CHANNEL_ID, 1)
    assert restored.status is Status.PUBLISHED
    assert statuses(hybrid) == {1: Status.PUBLISHED}
    told = outbox(hybrid, "payload ->> 'status', CAST(payload ->> 'version' AS bigint)")
    assert [status for status, _ in told] == [
        "queued",
        "retrying",
        "published",
        "deleted",
        "published",
    ]
    versions = [version for _, version in told]
    assert versions == sorted(set(versions))


def test_events_of_other_kinds_come_out_in_their_order(hybrid: Hybrid) -> None:
    # Broken on purpose: without paying in `wait`, the second mark comes behind what was said.
    saved(hybrid, *make_messages(2))
    with hybrid.transaction() as tx:
        tx.messages.mark(CHANNEL_ID, 1, Status.QUEUED)
        tx.messages.save(make_message(message_id=10))
        tx.messages.mark(CHANNEL_ID, 2, Status.QUEUED)
        tx.publish(Event("test.said", {"a": 1}, channel_id=CHANNEL_ID))
        tx.messages.mark(CHANNEL_ID, 10, Status.QUEUED)
    assert outbox(hybrid, "type, message_id") == [
        ("message.status_changed", 1),
        ("message.received", 10),
        ("message.status_changed", 2),
        ("test.said", None),
        ("message.status_changed", 10),
    ]


def test_each_event_keeps_the_trace_of_its_step(hybrid: Hybrid) -> None:
    # Broken on purpose: with the trace of the time when they are written, all had none.
    saved(hybrid, *make_messages(3))
    traceparents = [f"00-{n:032x}-{n:016x}-01" for n in (1, 2)]
    with hybrid.transaction() as tx:
        for number, traceparent in enumerate(traceparents, start=1):
            with traces.continued(traceparent):
                tx.messages.mark(CHANNEL_ID, number, Status.QUEUED)
        tx.messages.mark(CHANNEL_ID, 3, Status.QUEUED)
    assert outbox(hybrid, "traceparent") == [*((each,) for each in traceparents), (None,)]


def test_nothing_is_owed_by_a_connection_that_was_rolled_back(hybrid: Hybrid) -> None:
    # Broken on purpose: `rollback` that forgets nothing lets the next user of it pay.
    saved(hybrid, *make_messages(2))
    with pytest.raises(RuntimeError), hybrid.transaction() as tx:
        tx.messages.mark(CHANNEL_ID, 1, Status.QUEUED)
        raise RuntimeError
    assert statuses(hybrid) == {1: Status.RECEIVED, 2: Status.RECEIVED}
    assert outbox(hybrid, "id") == []


def test_a_savepoint_takes_back_the_steps_behind_it_and_no_others(hybrid: Hybrid) -> None:
    # Broken on purpose: without `forget` the rollback to the savepoint fails.
    saved(hybrid, *make_messages(3), make_message(channel_id=OTHER, message_id=4))
    schema = hybrid.settings.database_schema
    with hybrid.engine.begin() as holder, hybrid.transaction() as tx:
        lock_channels(holder, schema, [OTHER])
        tx.connection.execute(text("SET LOCAL lock_timeout TO '50ms'"))
        tx.messages.mark(CHANNEL_ID, 1, Status.QUEUED)
        savepoint = tx.connection.begin_nested()
        tx.messages.mark(CHANNEL_ID, 2, Status.QUEUED)
        with pytest.raises(DBAPIError, match="lock timeout"):
            tx.messages.mark(OTHER, 4, Status.QUEUED)
        savepoint.rollback()
        assert [change.key.message_id for change in tx.changes] == [1]
        tx.messages.mark(CHANNEL_ID, 3, Status.QUEUED)
    waiting = Status.RECEIVED
    assert statuses(hybrid) == {1: Status.QUEUED, 2: waiting, 3: Status.QUEUED, 4: waiting}
    assert outbox(hybrid, "message_id") == [(1,), (3,)]


@pytest.mark.parametrize("spoken", [True, False])
def test_what_the_database_refuses_is_our_error_wherever_it_is_told(
    hybrid: Hybrid, spoken: bool
) -> None:
    # Broken on purpose: with errors swallowed where it is paid, nobody is told.
    saved(hybrid, make_message(message_id=1))
    schema = hybrid.settings.database_schema
    with hybrid.engine.begin() as connection:
        connection.execute(
            text(f"DELETE FROM {schema}.status_transitions WHERE next = 'published'")
        )
    with pytest.raises(IllegalTransition, match="cannot become published"):  # noqa: SIM117
        with hybrid.transaction() as tx:
            tx.messages.mark(CHANNEL_ID, 1, Status.PUBLISHED)
            if spoken:
                tx.connection.execute(text("SELECT 1"))
    assert statuses(hybrid) == {1: Status.RECEIVED}
    assert outbox(hybrid, "id") == []


def test_a_message_that_is_gone_when_its_step_is_written_is_told(hybrid: Hybrid) -> None:
    # Broken on purpose: without the look at how many there were, its event tells of nothing.
    saved(hybrid, *make_messages(2))
    schema = hybrid.settings.database_schema
    with pytest.raises(WriteConflict, match="1 of 2 messages were there no more"):  # noqa: SIM117
        with hybrid.transaction() as tx:
            tx.messages.mark_many(CHANNEL_ID, [1, 2], Status.QUEUED)
            with psycopg.connect(hybrid.settings.database_url) as other:  # by hand, without a lock
                other.execute(f"DELETE FROM {schema}.messages WHERE message_id = 1")
    assert outbox(hybrid, "id") == []


def test_a_transaction_keeps_no_more_than_a_thousand_steps_waiting(hybrid: Hybrid) -> None:
    # Broken on purpose: without the limit, all are written at the end (P11).
    saved(hybrid, *make_messages(1_500))
    with collected() as said, hybrid.transaction() as tx:
        for first in range(1, 1_501, 500):
            tx.messages.mark_many(CHANNEL_ID, range(first, first + 500), Status.QUEUED)
    assert sum("mark_messages" in each for each in said) == 2
    assert set(statuses(hybrid).values()) == {Status.QUEUED}
