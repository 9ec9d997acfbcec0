"""Maintenance: the inbox and settled dead letters are kept for a while, and then forgotten."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from time import sleep

import attrs
from sqlalchemy import Connection

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.outbox import housekeeping, inbox
from telegram_hybrid.settings import LEAST_INBOX_WINDOW

DAY = 86_400.0
#: Seconds for which settled dead letters stay as history.
LETTER_WINDOW = 90 * DAY
#: Rows in one transaction, and seconds between two of them, in which others have the disk.
BATCH, PAUSE = 1_000, 0.05


@attrs.frozen(slots=True)
class Forgotten:
    """How many rows went."""

    inbox: int = 0
    dead_letters: int = 0


def maintain(
    transaction: Callable[[], AbstractContextManager[Connection]],
    schema: str,
    *,
    inbox_window: float,
    letter_window: float = LETTER_WINDOW,
    batch: int = BATCH,
    pause: float = PAUSE,
) -> Forgotten:
    """Forget inbox rows and settled dead letters that are older than their windows (seconds).

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
    if not letter_window >= 0:
        raise InvalidInput("letter_window", f"{letter_window:g} s; at least 0")
    with transaction() as connection:
        queues = inbox.queues(connection, schema)
        before = housekeeping.horizon(connection, schema, window=inbox_window)
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
    letters = 0
    while True:
        with transaction() as connection:
            gone = housekeeping.forget_letters(
                connection, schema, seconds=letter_window, limit=batch
            )
        letters += gone
        if gone < batch:
            return Forgotten(rows, letters)
        sleep(pause)
