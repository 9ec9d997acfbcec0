"""Silence: when a queue that hands out nothing is suspect; pure, with the clock passed in.

A broker may hold events that it hands to nobody: it has lost acknowledgements and takes the
consumer for busy, or takes one for alive that is gone (rabbitmq/rabbitmq-server, issues 11228,
15473 and 17317). Every one of these is over with a new connection, and none of them without.
"""

from __future__ import annotations

#: Seconds without an event until the broker is asked, and again until it is doubted.
SECONDS = 10.0


class Silence:
    """Of one connection: call `due` in every turn, and `stuck` with what the broker said."""

    def __init__(self, arrivals: int, now: float) -> None:
        self._first = self._last = arrivals
        self._since = now
        self._suspected = False

    def due(self, arrivals: int, in_hand: int, now: float) -> bool:
        """Whether to ask how many events are ready: none is in hand, none has come for long.

        `arrivals` counts those that have ever come.
        """
        if in_hand or arrivals != self._last:
            self._last, self._since, self._suspected = arrivals, now, False
        return now - self._since >= SECONDS

    def stuck(self, ready: int, consumers: int, now: float) -> bool:
        """Whether the broker held events for us the last time as well, and handed out none.

        One of several `consumers` that was never served may be the reserve of a single active one.
        """
        holds = ready > 0 and (consumers <= 1 or self._last > self._first)
        stuck, self._suspected, self._since = holds and self._suspected, holds, now
        return stuck
