"""Retention: old messages go by whole partitions; the cache, revisions and redeliveries follow."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from sqlalchemy import text
from stand import until
from statements import collected

import telegram_hybrid as th
from telegram_hybrid import Hybrid, InvalidInput, Message, Outcome, Status
from telegram_hybrid.repositories import retiring
from telegram_hybrid.repositories.writing import Writer
from telegram_hybrid.schema.postgres.ranges import DAY, parts
from telegram_hybrid.schema.postgres.sql import sql
from telegram_hybrid.testing import make_message
from telegram_hybrid.testing.factories import CHANNEL_ID

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC).replace(microsecond=0)
WINDOW = 30 * DAY
WEEK = timedelta(days=7)


def sent(days: float, **fields: Any) -> Message:
    """A message that was sent so many days ago."""
    return make_message(sent_at=NOW - timedelta(days=days), **fields)


def value(hybrid: Hybrid, query: str) -> Any:
    with hybrid.engine.connect() as connection:
        told = text(query.replace("{s}", hybrid.settings.database_schema))
        return connection.execute(told).scalar_one()


def edited(message: Message) -> Message:
    return attrs.evolve(message, text="again", edited_at=message.sent_at + timedelta(minutes=1))


@pytest.fixture
def old(hybrid: Hybrid) -> list[Message]:
    """Some of 100 days ago, each edited once."""
    found = [sent(100, message_id=number) for number in range(1, 6)]
    hybrid.messages.save_many(found)
    hybrid.messages.save_many(map(edited, found))
    return found


def test_nothing_goes_unless_somebody_says_so(hybrid: Hybrid, old: list[Message]) -> None:
    assert hybrid.maintain().messages == 0
    assert len(hybrid.messages.latest(CHANNEL_ID)) == len(old)


@pytest.mark.parametrize("window", [-1.0, 0.0, 3600.0, float("nan"), float("inf")])
@pytest.mark.one_server
def test_a_window_below_a_day_is_refused(hybrid: Hybrid, window: float) -> None:
    with pytest.raises(InvalidInput, match="message_window"):
        hybrid.maintain(message_window=window)


def test_old_ones_go_and_new_ones_stay(hybrid: Hybrid, old: list[Message]) -> None:
    # Broken on purpose: with parts chosen by where they begin, the message of 30 days less an hour
    # ago went; without the DELETE of revisions, or that of confirmations, theirs stayed.
    again = attrs.evolve(edited(old[0]), edited_at=old[0].sent_at + timedelta(minutes=9))
    assert hybrid.messages.save(again).outcome is Outcome.DUPLICATE
    assert value(hybrid, "SELECT count(*) FROM {s}.message_confirmations") == 1
    young = [sent(29.96, message_id=10), sent(0, message_id=11)]
    hybrid.messages.save_many(young)
    before = hybrid.statistics.summary().messages
    waiting = value(hybrid, "SELECT count(*) FROM {s}.outbox")
    steps: list[tuple[int, int]] = []

    done = hybrid.maintain(message_window=WINDOW, progress=lambda *step: steps.append(step))

    assert done.messages == len(old)
    assert steps[0][0] == 0
    assert steps[-1][0] == steps[-1][1] > 0
    assert hybrid.messages.get_many(CHANNEL_ID, range(20)) == {m.message_id: m for m in young}
    assert hybrid.messages.after(CHANNEL_ID) == young
    assert hybrid.messages.latest(CHANNEL_ID) == young[::-1]
    assert hybrid.messages.revisions(*old[0].key) == []
    assert value(hybrid, "SELECT count(*) FROM {s}.message_revisions") == 0
    assert value(hybrid, "SELECT count(*) FROM {s}.message_confirmations") == 0
    assert hybrid.statistics.summary().messages == before
    assert value(hybrid, "SELECT count(*) FROM {s}.outbox") == waiting, "nothing is announced"
    left = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'messages_retired_%'"
    assert value(hybrid, f"{left} AND schemaname = '{hybrid.settings.database_schema}'") == 0


def test_a_redelivery_of_what_is_gone_is_known_and_stores_nothing(
    hybrid: Hybrid, old: list[Message]
) -> None:
    # Broken on purpose: without the keys of what is gone it was stored and announced once more.
    hybrid.maintain(message_window=WINDOW)
    waiting = value(hybrid, "SELECT count(*) FROM {s}.outbox")
    assert hybrid.messages.save(old[0]).outcome is Outcome.DUPLICATE
    assert hybrid.messages.save(edited(old[1])).outcome is Outcome.DUPLICATE
    assert hybrid.messages.seen(CHANNEL_ID, [1, 2, 99]) == {1, 2}
    assert hybrid.messages.get(*old[0].key, include_deleted=True) is None
    assert value(hybrid, "SELECT count(*) FROM {s}.outbox") == waiting
    # One that was never seen is new at any age, and finds its place again.
    assert hybrid.messages.save(sent(100, message_id=50)).outcome is Outcome.INSERTED
    assert hybrid.messages.mark(CHANNEL_ID, 50, Status.QUEUED).message_id == 50


def test_no_cached_copy_outlives_the_message(hybrid: Hybrid, old: list[Message]) -> None:
    # Broken on purpose: with the changes not handed to the transaction all three were answered
    # from the cache. (P5)
    hybrid.messages.save(sent(1, message_id=20))
    ids = [message.message_id for message in old]
    for _ in range(2):
        assert len(hybrid.messages.latest(CHANNEL_ID, limit=10)) == len(old) + 1
        assert len(hybrid.messages.get_many(CHANNEL_ID, ids)) == len(old)
        assert len(hybrid.messages.after(CHANNEL_ID, message_id=0, limit=10)) == len(old) + 1
    hybrid.maintain(message_window=WINDOW)
    assert len(hybrid.messages.latest(CHANNEL_ID, limit=10)) == 1
    assert hybrid.messages.get_many(CHANNEL_ID, ids) == {}
    assert len(hybrid.messages.after(CHANNEL_ID, message_id=0, limit=10)) == 1
    # And what is loaded from now on may be cached again.
    with collected() as statements:
        for _ in range(3):
            assert hybrid.messages.get(CHANNEL_ID, 20) is not None
            assert len(hybrid.messages.latest(CHANNEL_ID, limit=10)) == 1
    assert len(statements) < 6


def test_the_next_run_goes_on_where_one_died(
    hybrid: Hybrid, old: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Broken on purpose: without the look at what is left the revisions and cached copies stayed.
    hybrid.messages.get_many(CHANNEL_ID, [1, 2, 3, 4, 5])

    def die(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(retiring, "_settle", die)
        with pytest.raises(KeyboardInterrupt):
            hybrid.maintain(message_window=WINDOW)
    assert value(hybrid, "SELECT count(*) FROM {s}.messages") == 0
    assert value(hybrid, "SELECT count(*) FROM {s}.message_revisions") == len(old)
    assert hybrid.maintain(message_window=WINDOW).messages == len(old)
    assert hybrid.messages.get_many(CHANNEL_ID, [1, 2, 3, 4, 5]) == {}
    assert value(hybrid, "SELECT count(*) FROM {s}.message_revisions") == 0


def test_a_part_that_somebody_writes_into_is_left_to_the_next_run(
    hybrid: Hybrid, old: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retiring, "TRIES", 1)
    with hybrid.transaction() as tx:
        tx.messages.mark(*old[0].key, Status.QUEUED)
        assert hybrid.maintain(message_window=WINDOW).messages == 0
    assert hybrid.messages.get(*old[0].key).status is Status.QUEUED
    assert hybrid.maintain(message_window=WINDOW).messages == len(old)


# Returns once somebody waits for a lock on the part, and ever after.
AWAIT = """
CREATE SEQUENCE {s}.awaited_once;
CREATE FUNCTION {s}.awaited(part regclass) RETURNS integer LANGUAGE plpgsql AS $body$
BEGIN
    IF nextval('{s}.awaited_once') = 1 THEN
        WHILE NOT EXISTS (SELECT FROM pg_locks WHERE relation = part AND NOT granted) LOOP
            PERFORM pg_sleep(0.01);
        END LOOP;
    END IF;
    RETURN 1;
END
$body$
"""


def test_a_writer_in_the_midst_of_a_part_is_given_way_to_and_the_part_goes_then(
    hybrid: Hybrid, old: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Broken on purpose: with DatabaseUnavailable alone the run ended with "deadlock detected".
    schema = hybrid.settings.database_schema
    with hybrid.engine.begin() as connection:
        for statement in AWAIT.split(";\n", 1):
            connection.execute(text(statement.replace("{s}", schema)))
        (part,) = [each for each in parts(connection, schema) if each.upper < NOW - 2 * WEEK
                   and each.lower <= old[0].sent_at < each.upper]  # fmt: skip
    waiting = f"{retiring._IDS}, {schema}.awaited('{part.name}')"
    monkeypatch.setattr(retiring, "_IDS", waiting)
    held = "SELECT count(*) FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND granted"
    held += f" AND relation = '{part.name}'::regclass"
    has_read, failed = threading.Event(), []

    def write() -> None:
        try:
            with hybrid.transaction() as tx:
                tx.connection.execute(text(f"SELECT count(*) FROM {part.name}"))
                has_read.set()
                while not tx.connection.execute(text(held)).scalar_one():
                    pass
                tx.messages.mark(*old[0].key, Status.QUEUED)
        except BaseException as error:
            failed.append(error)
            raise

    writer = threading.Thread(target=write)
    writer.start()
    assert has_read.wait(30)
    assert hybrid.maintain(message_window=WINDOW).messages == len(old)
    writer.join(30)
    assert failed == []
    assert value(hybrid, "SELECT count(*) FROM {s}.messages") == 0


def test_a_run_takes_nothing_away_that_another_one_is_about_to_read(
    hybrid: Hybrid, old: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail while the table of ids was dropped beside the lock, and with `to_regclass`, whose
    # answer was older than the lock: the other run ended in SchemaMismatch.
    looked, dropped, failed = threading.Event(), threading.Event(), []
    execute = Writer.execute
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

    def run() -> None:
        try:
            hybrid.maintain(message_window=WINDOW)
        except BaseException as error:
            failed.append(error)
            raise

    other = threading.Thread(target=run)

    def executed(self: Writer, statement: str, **values: Any) -> list[Any]:
        rows = execute(self, statement, **values)
        if statement is retiring._LEFT and threading.current_thread() is other:
            looked.set()
            dropped.wait(30)
        return rows

    def told(statement: str, schema: str) -> Any:
        if statement.startswith("DROP TABLE IF EXISTS") and other.ident is None:
            other.start()
            until(lambda: looked.is_set() or value(hybrid, waiting))
        return sql(statement, schema)

    monkeypatch.setattr(Writer, "execute", executed)
    monkeypatch.setattr(retiring, "sql", told)
    assert hybrid.maintain(message_window=WINDOW).messages == len(old)
    dropped.set()
    other.join(30)
    assert failed == []


def test_the_keys_of_many_that_are_gone_are_walked_over_by_one_statement(hybrid: Hybrid) -> None:
    # Broken on purpose: without `since` it took as many statements as there are batches of keys.
    hybrid.messages.save_many(sent(100, message_id=number) for number in range(1, 301))
    hybrid.messages.save(young := sent(1, message_id=400))
    hybrid.maintain(message_window=WINDOW)
    with th.connect(attrs.evolve(hybrid.settings, redis_url=None)) as uncached:
        uncached.messages.get(*young.key)  # the connection is open
        for read in (uncached.messages.latest, uncached.messages.after):
            with collected() as statements:
                assert read(CHANNEL_ID, limit=10) == [young]
            assert len(statements) <= 8


def test_the_future_is_made_ahead_by_every_run(hybrid: Hybrid) -> None:
    schema = hybrid.settings.database_schema
    with hybrid.engine.begin() as connection:
        last = parts(connection, schema)[-1]
        connection.execute(text(f"DROP TABLE {last.name}"))
    hybrid.maintain()
    with hybrid.engine.connect() as connection:
        assert parts(connection, schema)[-1].upper == last.upper
