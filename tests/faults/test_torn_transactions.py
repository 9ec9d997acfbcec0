"""Whatever tears a transaction: its rows, its events and the cache tell the same of it (P2, P5).

Broken on purpose and seen to fail: without `Steps.torn` a save that was interrupted between its
edit and its event is committed; following a RELEASE before it has run, the cache shows what was
rolled back behind it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from interruption import Interruption
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from telegram_hybrid import Event, Hybrid, Message, Status
from telegram_hybrid.connect.postgres import watched
from telegram_hybrid.errors import HybridError
from telegram_hybrid.outbox import rows
from telegram_hybrid.repositories import (
    marking,
    savepoints,
    saving,
    steps,
    transaction,
    writing,
)
from telegram_hybrid.schema.postgres import sql
from telegram_hybrid.testing import make_message
from telegram_hybrid.testing.factories import CHANNEL_ID

pytestmark = pytest.mark.faults

#: What may be interrupted at each of its lines.
WRITE_PATH = {
    module.__file__
    for module in (marking, rows, savepoints, saving, sql, steps, transaction, watched, writing)
}
IDS = range(1, 6)
STEPS = (Status.QUEUED, Status.RETRYING, Status.PUBLISHED, Status.REPROCESS_PENDING)
#: Of nothing that TimescaleDB may have compressed: its steps wait.
LATELY = datetime.now(UTC) - timedelta(hours=2)

#: A message as it stands: status, text, version.
Told = tuple[str, str, int]


class Edits:
    """Messages with a text that they never had before."""

    def __init__(self) -> None:
        self._number = 0

    def __call__(self, message_id: int) -> Message:
        self._number += 1
        return make_message(
            message_id=message_id,
            sent_at=LATELY + timedelta(seconds=message_id),
            edited_at=LATELY + timedelta(minutes=1, milliseconds=self._number),
            text=f"{self._number}",
        )


def stored(hybrid: Hybrid) -> dict[int, Told]:
    found = _rows(hybrid, "SELECT message_id, status, text, version FROM {schema}.messages")
    return {row.message_id: (row.status, row.text, row.version) for row in found}


def announced(hybrid: Hybrid) -> dict[int, Told]:
    """What the last event of each message tells."""
    found = _rows(
        hybrid,
        "SELECT message_id, coalesce(payload ->> 'status', 'received') AS status,"
        " payload ->> 'text' AS text, CAST(payload ->> 'version' AS bigint) AS version"
        " FROM {schema}.outbox WHERE message_id IS NOT NULL ORDER BY id",
    )
    versions = [row.version for row in found]
    assert versions == sorted(set(versions)), "events in the order of their versions"
    return {row.message_id: (row.status, row.text, row.version) for row in found}


def shown(hybrid: Hybrid) -> dict[int, Told]:
    """What the cache shows: of windows, which commits patch."""
    latest = hybrid.messages.latest(CHANNEL_ID, limit=50)
    return {each.message_id: (each.status.value, each.text, each.version) for each in latest}


def forget_events(hybrid: Hybrid) -> None:
    with hybrid.engine.begin() as connection:
        connection.execute(text(f"DELETE FROM {hybrid.settings.database_schema}.outbox"))


def _rows(hybrid: Hybrid, statement: str) -> list[Any]:
    with hybrid.engine.connect() as connection:
        schema = hybrid.settings.database_schema
        return list(connection.execute(text(statement.format(schema=schema))))


def _edit(tx: Any, edited: Edits) -> None:
    tx.messages.save(edited(1))


def _mark(tx: Any, _: Edits) -> None:
    tx.messages.mark(CHANNEL_ID, 2, Status.QUEUED)


def _save_some(tx: Any, edited: Edits) -> None:
    tx.messages.save_batch([edited(100), edited(2), edited(1)])


def _read(tx: Any, _: Edits) -> None:
    tx.messages.get(CHANNEL_ID, 1)


def _publish(tx: Any, _: Edits) -> None:
    tx.publish(Event("test.said", {"a": 1}, channel_id=CHANNEL_ID))


def _mark_nested(tx: Any, edited: Edits) -> None:
    with tx.connection.begin_nested():
        _mark(tx, edited)


def _roll_back(tx: Any, edited: Edits) -> None:
    nested = tx.connection.begin_nested()
    _mark(tx, edited)
    tx.messages.save(edited(2))
    nested.rollback()


@pytest.mark.parametrize("stride", [29, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "act", [_edit, _mark, _save_some, _read, _publish, _mark_nested, _roll_back]
)
def test_an_interruption_at_any_line_that_the_block_swallows(
    hybrid: Hybrid, act: Callable[[Any, Edits], None], stride: int
) -> None:
    """It commits all that it says, or nothing."""
    edited = Edits()
    hybrid.messages.save_many(map(edited, IDS))

    def attempt(at: int) -> tuple[int, bool]:
        """Return how many lines it took, and whether it was committed."""
        hybrid.messages.mark_many(CHANNEL_ID, IDS, Status.REPROCESS_PENDING)
        forget_events(hybrid)
        hybrid.messages.latest(CHANNEL_ID, limit=50)
        interruption, committed = Interruption(WRITE_PATH, at), False
        with suppress(HybridError, SQLAlchemyError):
            with hybrid.transaction() as tx:
                tx.messages.mark(CHANNEL_ID, 1, Status.QUEUED)
                with suppress(Interruption), interruption:
                    act(tx, edited)
                tx.messages.save(edited(1))
                tx.messages.mark(CHANNEL_ID, 3, Status.QUEUED)
            committed = True
        what = f"line {at} of the write path"
        assert announced(hybrid).items() <= stored(hybrid).items(), what
        if committed:
            assert {1, 3} <= announced(hybrid).keys(), what
            assert shown(hybrid) == stored(hybrid), what
        return interruption.lines, committed

    lines, committed = attempt(0)
    assert committed
    assert lines > stride
    for at in range(1, lines + 1, stride):
        attempt(at)


class AtRandom:
    """Writes of a transaction, some behind savepoints, and failures."""

    def __init__(self, chance: random.Random, edited: Edits) -> None:
        self._chance, self._edited = chance, edited

    def some(self, tx: Any, depth: int) -> None:
        for _ in range(self._chance.randint(1, 4)):
            with suppress(HybridError):  # a step that is not allowed, a message that is not there
                self._one(tx, depth)
        if depth and self._chance.random() < 0.2:
            with suppress(SQLAlchemyError):
                tx.connection.execute(text("SELECT 1 / 0"))

    def _one(self, tx: Any, depth: int) -> None:
        number, other = self._chance.randint(1, 8), self._chance.randint(1, 8)
        acts: list[Callable[[], object]] = [
            lambda: tx.messages.save_batch([self._edited(number), self._edited(other)]),
            lambda: tx.messages.mark(CHANNEL_ID, number, self._chance.choice(STEPS)),
            lambda: tx.messages.delete(CHANNEL_ID, number),
            lambda: tx.messages.restore(CHANNEL_ID, number),
        ]
        if depth < 3:
            acts += [lambda: self._behind_sql(tx, depth + 1), lambda: self._nested(tx, depth + 1)]
        self._chance.choice(acts)()

    def _behind_sql(self, tx: Any, depth: int) -> None:
        name = self._chance.choice("ab")
        tx.connection.execute(text(f"SAVEPOINT {name}"))
        released = False
        with suppress(SQLAlchemyError):
            self.some(tx, depth)
            if self._chance.random() < 0.7:
                tx.connection.execute(text(f"RELEASE {name}"))
                released = True
        if not released:
            tx.connection.execute(text(f"ROLLBACK TO {name}"))

    def _nested(self, tx: Any, depth: int) -> None:
        nested = tx.connection.begin_nested()
        ended = False
        with suppress(SQLAlchemyError):
            self.some(tx, depth)
            if self._chance.random() < 0.5:
                ended = True  # also where the RELEASE is refused, as of a failed transaction
                nested.commit()
        if not ended:
            nested.rollback()


@pytest.mark.filterwarnings("ignore:nested transaction already deassociated")
@pytest.mark.parametrize("seed", range(3))
def test_writes_and_savepoints_at_random(hybrid: Hybrid, seed: int) -> None:
    edited = Edits()
    hybrid.messages.save_many(map(edited, IDS))
    writes = AtRandom(random.Random(seed), edited)
    committed = 0
    for _ in range(60):
        hybrid.messages.latest(CHANNEL_ID, limit=50)
        forget_events(hybrid)
        with suppress(HybridError, SQLAlchemyError), hybrid.transaction() as tx:
            writes.some(tx, 0)
        committed += bool(announced(hybrid))
        there = stored(hybrid)
        assert announced(hybrid).items() <= there.items()
        assert shown(hybrid) == {n: told for n, told in there.items() if told[0] != "deleted"}
    assert committed > 30
