"""`lock_messages` and `mark_messages`, with which every change of a status begins and ends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, text

from telegram_hybrid import Hybrid, Status
from telegram_hybrid.outbox.locks import lock_prefix
from telegram_hybrid.repositories.reading import NAMES
from telegram_hybrid.schema.postgres.sql import fetch
from telegram_hybrid.testing import make_messages

pytestmark = pytest.mark.integration


def lock_messages(connection: Connection, schema: str, channel_id: int, ids: list[int]) -> Any:
    values = {"prefix": lock_prefix(schema), "channel": channel_id, "ids": ids}
    statement = 'SELECT * FROM "{schema}".lock_messages(:prefix, :channel, :ids)'
    return fetch(connection, statement, schema, values)


def test_the_transaction_has_its_number_with_the_lock(hybrid: Hybrid) -> None:
    """Relays give back what events below a number may still come by it (delivery.floor).

    Broken on purpose: without pg_current_xact_id.
    """
    with hybrid.engine.begin() as connection:
        lock_messages(connection, hybrid.settings.database_schema, -1, [1])
        number = text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
        assert connection.execute(number).scalar_one()


def test_it_sees_what_was_committed_while_it_waited_for_the_lock(hybrid: Hybrid) -> None:
    # Broken on purpose: STABLE, it returns the status of before.
    (message,) = make_messages(1)
    hybrid.messages.save(message)
    schema = hybrid.settings.database_schema
    waits = text("SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with (
        ThreadPoolExecutor(1) as pool,
        hybrid.engine.connect() as beside,
        hybrid.engine.connect() as waiting,
    ):
        with hybrid.transaction() as tx:
            tx.messages.mark(*message.key, Status.QUEUED)
            rows = pool.submit(
                lock_messages, waiting, schema, message.channel_id, [message.message_id]
            )
            while not beside.execute(waits).scalar_one():
                beside.rollback()
        assert rows.result()[0][NAMES.index("status")] == "queued"
