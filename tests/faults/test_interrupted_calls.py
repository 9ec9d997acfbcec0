"""Whatever interrupts a call, as Ctrl-C in a notebook does: the next one is as if it had not been.

Broken on purpose and seen to fail: without the look at `autocommit` when a connection leaves the
pool, a read that was interrupted before it had given its connection back had the next transaction
commit each of its statements; without the look at `ended`, a transaction that was interrupted at
its end kept its channel from its thread for ever.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress

import attrs
import pytest
from interruption import Interruption
from sqlalchemy import text
from stand import until

from telegram_hybrid import Hybrid, connect
from telegram_hybrid.connect import postgres
from telegram_hybrid.connect.postgres import line, router, watched
from telegram_hybrid.repositories import claiming, messages, polling, reading, transaction, writing
from telegram_hybrid.schema.postgres import sql
from telegram_hybrid.testing import make_message
from telegram_hybrid.testing.factories import CHANNEL_ID

pytestmark = pytest.mark.faults

#: What may be interrupted at each of its lines.
CALLS = {
    module.__file__
    for module in (
        *(claiming, line, messages, polling, postgres, reading),
        *(router, sql, transaction, watched, writing),
    )
}


def _read(hybrid: Hybrid) -> None:
    hybrid.messages.latest(CHANNEL_ID, limit=5)


def _claim(hybrid: Hybrid) -> None:
    hybrid.messages.release(hybrid.messages.claim("a", limit=1))


def _save(hybrid: Hybrid) -> None:
    hybrid.messages.save(make_message(message_id=1))


def _keep(hybrid: Hybrid) -> None:
    kept = line.Line(hybrid.engine)
    with kept() as connection:
        connection.execute(text("SELECT 1"))
    kept.close()


@pytest.mark.parametrize("act", [_read, _claim, _save, _keep])
def test_an_interruption_at_any_line_leaves_nothing_behind(
    hybrid: Hybrid, act: Callable[[Hybrid], None]
) -> None:
    settings = attrs.evolve(hybrid.settings, redis_url=None, pool_size=1)
    with connect(settings) as one:
        _save(one)

        def attempt(at: int) -> int:
            interruption = Interruption(CALLS, at)
            with suppress(Interruption), interruption:
                act(one)
            lines = interruption.lines
            interruption.__traceback__ = interruption.__context__ = None  # they hold connections
            gc.collect(1)
            until(lambda: one.engine.pool.checkedout() == 0, 10.0)
            with suppress(LookupError), one.transaction() as tx:
                tx.messages.save(make_message(message_id=2))
                raise LookupError("mine")
            assert one.messages.get(CHANNEL_ID, 2) is None, f"line {at}"
            _save(one)
            return lines

        for at in range(1, attempt(0) + 1):
            attempt(at)
