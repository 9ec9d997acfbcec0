"""Waking relays after a commit: a debounced call, of which the last is never swallowed."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread, current_thread
from time import monotonic

#: Seconds between two calls of one process; a relay needs about that long for a round.
INTERVAL = 0.005
#: Seconds without calling after a failure; relays poll meanwhile.
PAUSE = 1.0
#: Seconds without a commit after which the thread ends; the next commit starts another.
_IDLE = 1.0
#: Seconds that closing waits for a last call.
_LAST = 1.0


class Wake:
    """Has a thread call `tell` soon, however often it was asked, and never makes the asker wait.

    About one call in `INTERVAL` seconds, and always one that begins after the asking: a relay
    that woke for an earlier one may have looked before the last one committed. `tell` returns
    False if it failed; then there is none for `PAUSE` seconds. What is lost when the process ends,
    the relays' polling finds.

    Who has to say something to the same server anyway may `claim` the call.
    """

    _thread: Thread | None
    _next: float
    _stop: Event

    def __init__(self, tell: Callable[[], bool]) -> None:
        self._tell = tell
        self._begin()

    def __call__(self) -> None:
        """Return at once; never raises."""
        if self._process != os.getpid():
            self._begin()  # the thread is the parent's
        self._due = True
        self._news.set()
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._stop.is_set():
                    thread = Thread(target=self._work, name="telegram_hybrid.wake", daemon=True)
                    # Python starts none while it shuts down; what was committed is committed.
                    with suppress(RuntimeError):
                        thread.start()
                        self._thread = thread

    def claim(self) -> bool:
        """Whether the caller is to tell the relays himself, at once, in the thread's place.

        If he cannot, he has to ask after all.
        """
        now = monotonic()
        if now < self._next:
            return False
        # Two that come at the same moment both tell: no harm, and no lock.
        self._next = now + INTERVAL
        self._due = False  # who asked before is told of as well
        return True

    def close(self) -> None:
        """Make the call that is due, if it takes less than a second; may be repeated."""
        thread = self._thread
        self._stop.set()
        if thread is not None and self._process == os.getpid():
            self._news.set()
            thread.join(_LAST)

    def _begin(self) -> None:
        self._process = os.getpid()
        self._due = False
        #: When the next call may begin, on the monotonic clock.
        self._next = 0.0
        self._news, self._stop, self._lock = Event(), Event(), Lock()
        self._thread = None

    def _work(self) -> None:
        while self._news.wait(_IDLE) or not self._is_over():
            self._news.clear()
            if self._due:
                self._stop.wait(max(0.0, self._next - monotonic()))
            if self._due:
                self._due = False  # first: who asks from here on may have committed too late
                self._next = monotonic() + (INTERVAL if self._tell() else PAUSE)
            if self._stop.is_set() and not self._due:
                return

    def _is_over(self) -> bool:
        with self._lock:
            self._thread = None  # first: who asks from here on waits to start another
            if self._news.is_set():
                self._thread = current_thread()
            return self._thread is None
