"""Waking relays after a commit: a debounced PUBLISH whose last call is never swallowed."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Timer
from time import monotonic

#: Seconds between two publishes of one process; a relay needs about that long for a round.
INTERVAL = 0.005
#: Seconds without publishing after a failure; relays poll meanwhile.
PAUSE = 1.0


class Wake:
    """Calls `publish` at once, or once at the end of the interval however often it was asked.

    The call at the end covers the last writer: a relay that woke for an earlier one may have
    looked before the last one committed. If the process ends within the interval, that call is
    lost and the relay's polling finds the rows. `publish` returns False if it failed.
    """

    def __init__(self, publish: Callable[[], bool], clock: Callable[[], float] = monotonic) -> None:
        self._publish = publish
        self._clock = clock
        self._lock = Lock()
        self._not_before = 0.0
        self._timer: Timer | None = None

    def __call__(self) -> None:
        """Wake now, or soon if it was just done; never raises what `publish` does not."""
        with self._lock:
            wait = self._not_before - self._clock()
            if wait > INTERVAL or self._timer is not None:
                return
            if wait > 0:
                self._timer = Timer(wait, self._late)
                self._timer.daemon = True
                self._timer.start()
                return
            self._not_before = self._clock() + INTERVAL
        self._send()

    def close(self) -> None:
        """Forget a call that is still to come."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _late(self) -> None:
        with self._lock:
            self._timer = None
            self._not_before = self._clock() + INTERVAL
        self._send()

    def _send(self) -> None:
        if not self._publish():
            with self._lock:
                self._not_before = self._clock() + PAUSE
