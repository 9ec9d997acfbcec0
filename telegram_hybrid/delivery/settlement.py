"""Settlement: what to do with each row, given what became of its event; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from telegram_hybrid.delivery.backoff import REPUBLISH, Backoff
from telegram_hybrid.delivery.confirms import Receipt, Verdict
from telegram_hybrid.outbox.claims import Burial, Postponement
from telegram_hybrid.outbox.rows import OutboxRow

#: After so many refusals, about half an hour, an event becomes a dead letter.
MAX_ATTEMPTS = 40


@attrs.frozen(slots=True)
class Settlement:
    """What one batch comes to; rows in none of the lists stay as they are.

    `doubt` is the reason why some event's fate is unknown: the connection must be given up.
    """

    delete: list[int]
    postpone: list[Postponement]
    bury: list[Burial]
    doubt: str | None


def settle(
    rows: Sequence[OutboxRow],
    receipts: Sequence[Receipt],
    *,
    max_attempts: int = MAX_ATTEMPTS,
    backoff: Backoff = REPUBLISH,
    chance: Callable[[], float],
) -> Settlement:
    """Decide on every row, in order.

    Confirmed rows go. The first refused row of a channel (returned, nacked) is postponed, which
    freezes its channel, or given up after `max_attempts`. What is unknown or was held back says
    nothing about the event: it is simply published again.
    """
    result = Settlement([], [], [], None)
    stopped: set[int] = set()
    for row, receipt in zip(rows, receipts, strict=True):
        if receipt.verdict is Verdict.CONFIRMED:
            result.delete.append(row.id)
            continue
        if receipt.verdict is Verdict.UNKNOWN:
            result = attrs.evolve(result, doubt=receipt.reason)
        elif receipt.verdict is not Verdict.HELD and row.channel_id not in stopped:
            attempts = row.attempts + 1
            if attempts >= max_attempts:
                result.bury.append(Burial(row, receipt.reason))
            else:
                delay = backoff.delay(attempts, chance())
                result.postpone.append(Postponement(row, receipt.reason, delay))
        stopped.add(row.channel_id)
    return result
