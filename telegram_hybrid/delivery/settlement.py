"""Settlement: what to do with a row whose event was refused; pure."""

from __future__ import annotations

from typing import Literal

from telegram_hybrid.delivery.backoff import REPUBLISH, Backoff
from telegram_hybrid.delivery.confirms import Receipt
from telegram_hybrid.outbox.claims import Burial, Postponement
from telegram_hybrid.outbox.rows import OutboxRow

#: After so many refusals, about half an hour, an event is given up.
MAX_ATTEMPTS = 40
#: What a channel does when one of its events is given up.
OnDead = Literal["continue", "freeze"]


def decide(
    row: OutboxRow,
    receipt: Receipt,
    *,
    max_attempts: int = MAX_ATTEMPTS,
    on_dead: OnDead = "continue",
    backoff: Backoff = REPUBLISH,
    chance: float,
) -> Postponement | Burial:
    """Try a refused event again later, which freezes its channel, or give it up.

    Given up, it becomes a dead letter and its channel goes on, or ("freeze") nothing of its
    channel is published until somebody replays or discards the letter. `chance` is a random
    number from 0 to 1.
    """
    attempts = row.attempts + 1
    if attempts < max_attempts:
        return Postponement(row, receipt.reason, backoff.delay(attempts, chance))
    return Burial(row, receipt.reason, freeze=on_dead == "freeze")
