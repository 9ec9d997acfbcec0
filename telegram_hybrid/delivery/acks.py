"""Acknowledgements: what a consumer was handed, and how it tells the broker what it has done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from operator import attrgetter
from typing import Any

import attrs

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Event


@attrs.frozen(slots=True)
class Delivery:
    """A message of kombu's, its routing key, and the event in it, or why there is none.

    `number` counts what arrived.
    """

    number: int
    message: Any
    routing_key: str
    event: Event | InvalidInput


def acknowledge(done: Sequence[Delivery], in_hand: Iterable[Delivery]) -> None:
    """Tell the broker: at once what arrived before all that is in hand, the others singly."""
    rest = min((each.number for each in in_hand), default=inf)
    first = [each for each in done if each.number < rest]
    if first:
        max(first, key=attrgetter("number")).message.ack(multiple=True)
    for each in done:
        if each.number > rest:
            each.message.ack()
