"""Maintenance: inbox, settled dead letters and changes are kept for a while, then forgotten."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from time import sleep

import attrs
from sqlalchemy import Connection

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.outbox import changelog, housekeeping, inbox
from telegram_hybrid.settings import LEAST_INBOX_WINDOW

DAY = 86_400.0
#: Seconds for which settled dead letters stay as history.
LETTER_WINDOW = 90 * DAY
#: Seconds for which changes stay, for `messages.changes`.
CHANGE_WINDOW = 30 * DAY
#: Rows in one transaction, and seconds between two of them, in which others have the disk.
BATCH, PAUSE = 1_000, 0.05


@attrs.frozen(slots=True)
class Forgotten:
    """How many rows went, and how many chunks were compressed."""

    inbox: int = 0
    dead_letters: int = 0
    changes: int = 0
    messages: int = 0
    #: Chunks that were compressed, for the first time or again.
    compressed: int = 0


def maintain(
    transaction: Callable[[], AbstractContextManager[Connection]],
    schema: str,
    *,
    inbox_window: float,
    letter_window: float = LETTER_WINDOW,
    change_window: float = CHANGE_WINDOW,
    batch: int = BATCH,
    pause: float = PAUSE,
) -> Forgotten:
    """Forget inbox rows, settled dead letters and changes older than their windows (seconds).

    A thousand rows in a transaction, with a pause between two, so consumers go on beside it; it
    locks nothing but the rows that go. Open dead letters are never touched. What is interrupted is
    gone on with by the next run; several at once do no harm. An event that is handed out again
    after its row is forgotten is handled again; one that was never handled is so at any age.
    Raises `InvalidInput` for an inbox window below an hour, and `DatabaseError`.
    """
    if not inbox_window >= LEAST_INBOX_WINDOW:
        raise InvalidInput(
            "inbox_window",
            f"{inbox_window:g} s; at least {LEAST_INBOX_WINDOW:g} s, longer than any redelivery"
            " takes",
        )
    for name, window in (("letter_window", letter_window), ("change_window", change_window)):
        if not window >= 0:
            raise InvalidInput(name, f"{window:g} s; at least 0")
    return Forgotten(
        _inbox(transaction, schema, inbox_window, batch, pause),
        _letters(transaction, schema, letter_window, batch, pause),
        _changes(transaction, schema, change_window, batch, pause),
    )


_Transaction = Callable[[], AbstractContextManager[Connection]]


def _inbox(transaction: _Transaction, schema: str, window: float, batch: int, pause: float) -> int:
    with transaction() as connection:
        queues = inbox.queues(connection, schema)
        before = housekeeping.horizon(connection, schema, window=window)
    rows = 0
    for queue in sorted(queues):
        after = housekeeping.NO_EVENT
        while True:
            with transaction() as connection:
                gone, last = housekeeping.forget(
                    connection, schema, queue, before=before, after=after, limit=batch
                )
            rows += gone
            if last is None:
                break
            after = last
            sleep(pause)
    return rows


def _letters(
    transaction: _Transaction, schema: str, window: float, batch: int, pause: float
) -> int:
    forget = partial(housekeeping.forget_letters, schema=schema, seconds=window, limit=batch)
    return _repeated(transaction, forget, batch, pause)


def _changes(
    transaction: _Transaction, schema: str, window: float, batch: int, pause: float
) -> int:
    with transaction() as connection:
        channels = changelog.overdue(connection, schema, seconds=window)
    return sum(
        _repeated(
            transaction,
            partial(changelog.forget, schema=schema, channel_id=each, seconds=window, limit=batch),
            batch,
            pause,
        )
        for each in channels
    )


def _repeated(
    transaction: _Transaction, forget: Callable[[Connection], int], batch: int, pause: float
) -> int:
    """Forget a batch in a transaction until one is not full; return how many went."""
    total = 0
    while True:
        with transaction() as connection:
            gone = forget(connection)
        total += gone
        if gone < batch:
            return total
        sleep(pause)
