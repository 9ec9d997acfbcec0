"""Confirms: matching the broker's answers to what was published; pure."""

from __future__ import annotations

from enum import StrEnum
from itertools import takewhile

import attrs


class Verdict(StrEnum):
    """What the broker said of one event."""

    CONFIRMED = "confirmed"
    RETURNED = "returned"  # no queue is bound for it
    NACKED = "nacked"  # the broker has it not


@attrs.frozen(slots=True)
class Receipt:
    """The verdict on one event, the broker's words, and how many seconds it took."""

    message_id: str
    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0


class Confirms:
    """The unconfirmed publishes of one confirming AMQP channel.

    The broker counts publishes from 1 and answers with those numbers, one by one or "all up to"
    (`multiple`); a returned message comes back without a number, before its ack, and is known by
    its message id (RabbitMQ, "Consumer Acknowledgements and Publisher Confirms"). Times are those
    of one monotonic clock, told by the caller.
    """

    def __init__(self) -> None:
        self._sent = 0
        # By number, so in the order of sending.
        self._waiting: dict[int, tuple[str, float]] = {}
        self._returned: dict[str, str] = {}
        self._answered: list[tuple[str, float, Verdict, str]] = []

    @property
    def waiting(self) -> int:
        """How many publishes have no answer yet."""
        return len(self._waiting)

    @property
    def oldest(self) -> float | None:
        """When the first of them was sent."""
        return next((sent_at for _, sent_at in self._waiting.values()), None)

    def sent(self, message_id: str, now: float = 0.0) -> None:
        """Note a publish; to be called before it is written, in the same order."""
        self._sent += 1
        self._waiting[self._sent] = (message_id, now)

    def returned(self, message_id: str, reason: str) -> None:
        """Note that a message came back; its ack follows."""
        self._returned[message_id] = reason

    def acked(self, number: int, multiple: bool) -> None:
        """Note the broker's ack."""
        for message_id, sent_at in self._take(number, multiple):
            reason = self._returned.pop(message_id, None)
            verdict = Verdict.CONFIRMED if reason is None else Verdict.RETURNED
            self._answered.append((message_id, sent_at, verdict, reason or ""))

    def nacked(self, number: int, multiple: bool) -> None:
        """Note the broker's nack."""
        for message_id, sent_at in self._take(number, multiple):
            self._returned.pop(message_id, None)
            why = "the broker rejected it (nack)"
            self._answered.append((message_id, sent_at, Verdict.NACKED, why))

    def collect(self, now: float = 0.0) -> list[Receipt]:
        """Return and forget the answers that came, in the order in which they did."""
        answered, self._answered = self._answered, []
        return [
            Receipt(message_id, verdict, reason, now - sent_at)
            for message_id, sent_at, verdict, reason in answered
        ]

    def _take(self, number: int, multiple: bool) -> list[tuple[str, float]]:
        if not multiple:
            one = self._waiting.pop(number, None)
            return [] if one is None else [one]
        numbers = list(takewhile(lambda waiting: waiting <= number, self._waiting))
        return [self._waiting.pop(waiting) for waiting in numbers]
