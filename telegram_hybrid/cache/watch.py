"""Watch: audits a small sample again and again, in the background."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Thread

from telegram_hybrid.cache.audit import Audit
from telegram_hybrid.errors import HybridError

_log = logging.getLogger("telegram_hybrid.cache")
#: Keys of one audit in the background.
SAMPLE = 100


class Watch(Thread):
    """A daemon thread that audits every `seconds`, and logs what is inconsistent."""

    def __init__(self, audit: Callable[[int], Audit], seconds: float) -> None:
        super().__init__(name="telegram_hybrid cache audit", daemon=True)
        self._audit = audit
        self._seconds = seconds
        self._stopped = Event()

    def run(self) -> None:
        """Audit until `stop`. What fails is logged, and tried again in its turn."""
        while not self._stopped.wait(self._seconds):
            try:
                found = self._audit(SAMPLE)
            except HybridError as error:
                _log.info("cache audit: %s", error)
                continue
            if found.inconsistent:
                _log.warning(
                    "cache audit: %d of %d values are not what the database has: %s",
                    found.inconsistent,
                    found.checked,
                    "; ".join(found.examples),
                )

    def stop(self) -> None:
        """End the thread; legal before its start, and twice."""
        self._stopped.set()
        if self.is_alive():
            self.join(5.0)
