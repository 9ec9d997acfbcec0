"""`lock_keys`, with which every save begins."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, text

from telegram_hybrid import Hybrid
from telegram_hybrid.outbox.locks import lock_prefix
from telegram_hybrid.schema.postgres.sql import fetch
from telegram_hybrid.testing import make_messages

pytestmark = pytest.mark.integration


def lock_keys(connection: Connection, schema: str, keys: list[tuple[int, int]]) -> list[Any]:
    channels, messages = (list(column) for column in zip(*keys, strict=True))
    values = {"prefix": lock_prefix(schema), "channels": channels, "messages": messages}
    statement = 'SELECT * FROM "{schema}".lock_keys(:prefix, :channels, :messages)'
    return fetch(connection, statement, schema, values)


def test_it_tells_of_each_message_in_their_order_with_rising_versions(hybrid: Hybrid) -> None:
    # Broken on purpose: ORDER BY position DESC.
    first, second, third = make_messages(3)
    hybrid.messages.save_many([first, third])
    with hybrid.engine.begin() as connection:
        keys = [third.key, second.key, first.key]
        rows = lock_keys(connection, hybrid.settings.database_schema, keys)
    assert [row[0] for row in rows] == [third.sent_at, None, first.sent_at]
    versions = [row[1] for row in rows]
    assert versions == sorted(set(versions))


def test_the_transaction_has_its_number_with_the_locks(hybrid: Hybrid) -> None:
    """Relays give back what events below a number may still come by it (delivery.floor).

    Broken on purpose: without pg_current_xact_id.
    """
    (message,) = make_messages(1)
    schema = hybrid.settings.database_schema
    with hybrid.engine.begin() as connection:
        lock_keys(connection, schema, [message.key])  # a sequence that is logged numbers it, too
    with hybrid.engine.begin() as connection:
        lock_keys(connection, schema, [message.key])
        number = text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
        assert connection.execute(number).scalar_one()


def test_a_plan_made_of_empty_tables_goes_by_the_key_when_they_are_full(hybrid: Hybrid) -> None:
    # Broken on purpose: without `enable_seqscan` in it, all keys were read for each message.
    schema = hybrid.settings.database_schema
    with hybrid.engine.connect() as connection:
        connection.execute(text(f"ANALYZE {schema}.message_keys"))
        connection.commit()
        lock_keys(connection, schema, [(-1, 1)])
        connection.commit()
        with hybrid.engine.begin() as other:
            other.execute(
                text(
                    f"INSERT INTO {schema}.message_keys "
                    "SELECT -1, n, now() FROM generate_series(1, 20000) AS n"
                )
            )
        scans = text(
            "SELECT seq_scan FROM pg_stat_xact_user_tables "
            f"WHERE schemaname = '{schema}' AND relname = 'message_keys'"
        )
        before = connection.execute(scans).scalar_one()
        lock_keys(connection, schema, [(-1, n) for n in range(1, 101)])
        assert connection.execute(scans).scalar_one() == before
