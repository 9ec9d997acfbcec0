"""Reports: what arrived when, from the process that knows to the one that measures."""

from __future__ import annotations

from collections import deque
from multiprocessing.connection import Connection
from threading import Thread
from time import monotonic, sleep

_EVERY = 0.25


class Report:
    """Notes when each number arrived, and sends that four times a second.

    To send each by itself would take the measuring process away from its writers.
    """

    def __init__(self, told: Connection) -> None:
        self._told = told
        self._arrived: deque[tuple[int, float]] = deque()
        Thread(target=self._send, daemon=True).start()

    def __call__(self, number: int) -> None:
        """Note that it arrived now."""
        self._arrived.append((number, monotonic()))

    def _send(self) -> None:
        while True:
            sleep(_EVERY)
            arrived = [self._arrived.popleft() for _ in range(len(self._arrived))]
            if arrived:
                self._told.send(arrived)
