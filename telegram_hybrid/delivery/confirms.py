"""Confirms: waves, and matching the broker's answers to what was published; pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import StrEnum

import attrs


class Verdict(StrEnum):
    """What became of one event that was to be published."""

    CONFIRMED = "confirmed"
    RETURNED = "returned"  # no queue is bound for it
    NACKED = "nacked"  # the broker has it not
    UNKNOWN = "unknown"  # sent, and no answer: it may be there or not
    HELD = "held"  # not sent, because of an earlier event or a broken connection


@attrs.frozen(slots=True)
class Receipt:
    """The verdict on one event, and the broker's words."""

    verdict: Verdict
    reason: str = ""


CONFIRMED = Receipt(Verdict.CONFIRMED)


def waves(keys: Sequence[Hashable]) -> list[list[int]]:
    """Split positions into waves with at most one position of each key, in order.

    The n-th position of a key is in the n-th wave. Publishing wave by wave, each confirmed
    before the next, keeps a key's order whatever the broker refuses.
    """
    result: list[list[int]] = []
    seen: dict[Hashable, int] = {}
    for position, key in enumerate(keys):
        number = seen.get(key, 0)
        seen[key] = number + 1
        if number == len(result):
            result.append([])
        result[number].append(position)
    return result


class Confirms:
    """The unconfirmed publishes of one confirming AMQP channel.

    The broker counts publishes from 1 and answers with those numbers, one by one or "all up to"
    (`multiple`); a returned message comes back without a number, before its ack, and is known by
    its message id (RabbitMQ, "Consumer Acknowledgements and Publisher Confirms").
    """

    def __init__(self) -> None:
        self._sent = 0
        self._waiting: dict[int, str] = {}
        self._returned: dict[str, str] = {}
        self._receipts: dict[str, Receipt] = {}

    @property
    def waiting(self) -> int:
        """How many publishes have no answer yet."""
        return len(self._waiting)

    def sent(self, message_id: str) -> None:
        """Note a publish; to be called before it is written, in the same order."""
        self._sent += 1
        self._waiting[self._sent] = message_id

    def returned(self, message_id: str, reason: str) -> None:
        """Note that a message came back; its ack follows."""
        self._returned[message_id] = reason

    def acked(self, number: int, multiple: bool) -> None:
        """Note the broker's ack."""
        for message_id in self._take(number, multiple):
            reason = self._returned.pop(message_id, None)
            self._receipts[message_id] = (
                CONFIRMED if reason is None else Receipt(Verdict.RETURNED, reason)
            )

    def nacked(self, number: int, multiple: bool) -> None:
        """Note the broker's nack."""
        for message_id in self._take(number, multiple):
            self._returned.pop(message_id, None)
            self._receipts[message_id] = Receipt(Verdict.NACKED, "the broker rejected it (nack)")

    def collect(self, reason: str = "no answer") -> dict[str, Receipt]:
        """Return and forget the receipts by message id; what still waits is unknown."""
        receipts = self._receipts
        for message_id in self._waiting.values():
            receipts[message_id] = Receipt(Verdict.UNKNOWN, reason)
        self._receipts, self._waiting = {}, {}
        return receipts

    def _take(self, number: int, multiple: bool) -> list[str]:
        if not multiple:
            message_id = self._waiting.pop(number, None)
            return [] if message_id is None else [message_id]
        numbers = [waiting for waiting in self._waiting if waiting <= number]
        return [self._waiting.pop(waiting) for waiting in numbers]
