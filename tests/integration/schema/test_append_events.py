"""`append_events`, and what else a session of the database may hold beside our tables."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from telegram_hybrid import Hybrid, Outcome
from telegram_hybrid.testing import make_message

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("name", ["messages", "message_keys", "outbox"])
def test_a_temporary_table_of_the_session_is_not_taken_for_ours(hybrid: Hybrid, name: str) -> None:
    # Broken on purpose: with tables that were not named with their schema in `append_events`, and
    # with read_messages' search path of before revision 0010, the message was not stored, or the
    # event, or neither was found.
    schema = hybrid.settings.database_schema
    message = make_message()
    with hybrid.transaction() as tx:
        tx.connection.execute(
            text(f"CREATE TEMP TABLE {name} (LIKE {schema}.{name} INCLUDING ALL) ON COMMIT DROP")
        )
        assert tx.messages.save(message).outcome is Outcome.INSERTED
        assert tx.messages.get(*message.key) is not None
    assert hybrid.messages.get(*message.key) is not None
    with hybrid.engine.connect() as connection:
        found = connection.execute(text(f"SELECT count(*) FROM {schema}.outbox"))
        assert found.scalar_one() == 1


def test_a_trigger_of_somebody_else_works_as_it_would_in_psql(hybrid: Hybrid) -> None:
    # Broken on purpose: with a search path in `append_events` its function was not found.
    schema = hybrid.settings.database_schema
    statements = f"""
        CREATE FUNCTION {schema}_twice(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 2 * $1';
        CREATE FUNCTION {schema}_hear() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM {schema}_twice(NEW.message_id); RETURN NEW; END $$;
        CREATE TRIGGER hear AFTER INSERT ON {schema}.messages FOR EACH ROW
        EXECUTE FUNCTION {schema}_hear();
    """
    with hybrid.engine.begin() as connection:
        connection.connection.driver_connection.execute(statements)
    try:
        assert hybrid.messages.save(make_message()).outcome is Outcome.INSERTED
    finally:
        with hybrid.engine.begin() as connection:
            connection.execute(text(f"DROP FUNCTION {schema}_hear CASCADE"))
            connection.execute(text(f"DROP FUNCTION {schema}_twice"))
