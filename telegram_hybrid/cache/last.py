"""Last known values: what a read may answer when the present one is late or out of reach.

After "HTTP Cache-Control Extensions for Stale Content" (RFC 5861): `stale-while-revalidate` and
`stale-if-error`, except that a caller has to ask for them and is told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import NamedTuple, TypeVar

from telegram_hybrid.errors import ServiceError

T = TypeVar("T")
_log = logging.getLogger("telegram_hybrid.cache")


class Allowed(NamedTuple):
    """What a caller lets a read answer with, besides the present value."""

    if_error: bool = False
    while_revalidate: bool = False


NOTHING = Allowed()


class LastKnown:
    """Answers with last known values, and has present ones loaded in the background."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Have locks and threads of our own: at first, and in a forked child."""
        self._lock = Lock()
        self._loading: set[str] = set()
        self._executor: ThreadPoolExecutor | None = None

    def read(
        self,
        key: str,
        read: Callable[[], T],
        last: Callable[[], T | None],
        *,
        hit: Callable[[], T | None] | None,
        if_error: bool,
    ) -> T:
        """Return what is cached, last known, or read, as far as the caller allows it.

        `hit` looks into the cache only; with it, what it lacks is answered by `last` while
        `read` runs in the background. With `if_error`, `last` answers when `read` fails because
        the database is out of reach; the error is raised when there is nothing known.
        """
        if hit is not None:
            present = hit()
            if present is not None:
                return present
            known = last()
            if known is not None:
                self._refresh(key, read)
                return known
        try:
            return read()
        except ServiceError as error:
            known = last() if if_error else None
            if known is None:
                raise
            _log.debug("answered with the last known value of %s: %s", key, error)
            return known

    def close(self) -> None:
        """Wait for what is being loaded."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)

    def _refresh(self, key: str, read: Callable[[], object]) -> None:
        with self._lock:
            if key in self._loading:
                return
            self._loading.add(key)
            if self._executor is None:
                self._executor = ThreadPoolExecutor(4, "telegram_hybrid refresh")
            executor = self._executor

        def refresh() -> None:
            try:
                read()
            except ServiceError as error:
                _log.debug("could not refresh %s: %s", key, error)
            finally:
                with self._lock:
                    self._loading.discard(key)

        try:
            executor.submit(refresh)
        except RuntimeError as error:  # there are no more threads: the next who asks tries again
            self._loading.discard(key)
            _log.debug("could not refresh %s: %s", key, error)
