"""Worker: the life of a loop that runs in the foreground or in a thread of its own."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from threading import Event, Lock, Thread, current_thread

from telegram_hybrid.errors import HybridError

log = logging.getLogger("telegram_hybrid.delivery")


class Worker(ABC):
    """Starting twice, stopping twice, and stopping before starting are legal."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: Why the thread of `start` ended by itself; None while it runs or after `stop`.
        self.failure: BaseException | None = None
        self._life = Lock()
        self._stop = Event()
        self._thread: Thread | None = None

    @abstractmethod
    def run(self, stop: Event) -> None:
        """Work in this thread until `stop` is set, finish what is in hand, and clean up."""

    def start(self) -> None:
        """Run in a thread of its own."""
        with self._life:
            if self.running:
                return
            self.failure = None
            self._stop = Event()
            self._thread = Thread(target=self._guarded, name=self.name, daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 30.0) -> bool:
        """Finish what is in hand and end the thread; False if that took more than `timeout` s.

        Called in that thread itself, it returns at once, and the thread ends after what is in hand.
        """
        with self._life:
            self._stop.set()
            self._interrupt()
            thread = self._thread
        if thread is not None and thread is not current_thread():
            thread.join(timeout)
        return not self.running

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread is not None and self._thread.is_alive()

    def _interrupt(self) -> None:  # noqa: B027  (a hook, empty on purpose)
        """Cut a wait short."""

    def _guarded(self) -> None:
        try:
            self.run(self._stop)
        except HybridError as error:
            self.failure = error
            log.error("%s ended: %s", self.name, error)  # noqa: TRY400  (it says what to do)
        except BaseException as error:  # the last resort of a thread, whose end nobody else sees
            self.failure = error
            log.exception("%s ended by an unexpected error", self.name)
