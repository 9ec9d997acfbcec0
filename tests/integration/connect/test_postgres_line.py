"""A line keeps its connection, and never a bad one."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from telegram_hybrid import Hybrid
from telegram_hybrid.connect.postgres import line as lines
from telegram_hybrid.connect.postgres.line import Line
from telegram_hybrid.errors import DatabaseError, DatabaseUnavailable

pytestmark = pytest.mark.integration

BACKEND = text("SELECT pg_backend_pid()")


def backend(line: Line) -> int:
    with line() as connection:
        pid: int = connection.execute(BACKEND).scalar_one()
        return pid


def test_statements_share_a_connection_and_each_commits_itself(hybrid: Hybrid) -> None:
    line = Line(hybrid.engine)
    assert backend(line) == backend(line)
    with line() as connection:
        first = connection.execute(text("SELECT pg_current_xact_id()")).scalar_one()
        second = connection.execute(text("SELECT pg_current_xact_id()")).scalar_one()
    assert first != second
    line.close()
    line.close()
    assert hybrid.engine.pool.checkedout() == 0


def test_it_goes_back_to_the_pool_in_time(hybrid: Hybrid, monkeypatch: pytest.MonkeyPatch) -> None:
    # Broken on purpose: without the look at the clock, a lost way would be kept for ever.
    monkeypatch.setattr(lines, "KEPT", 0.0)
    line = Line(hybrid.engine)
    backend(line)
    hybrid.engine.dispose()  # what is in the pool, not what is lent
    with hybrid.engine.connect() as other:  # taken first by the next who asks
        pid = other.execute(BACKEND).scalar_one()
    assert backend(line) == pid
    line.close()


def test_after_an_error_the_next_use_takes_another(hybrid: Hybrid) -> None:
    # Broken on purpose: without `close` on an error the second statement failed like the first.
    line = Line(hybrid.engine)
    pid = backend(line)
    with hybrid.engine.connect() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    with pytest.raises(DatabaseUnavailable):
        backend(line)
    assert backend(line) != pid
    with pytest.raises(DatabaseError), line() as connection:
        connection.execute(text("SELECT 1 / 0"))
    assert backend(line)
    line.close()
    assert hybrid.engine.pool.checkedout() == 0
