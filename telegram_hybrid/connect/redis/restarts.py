"""Restarts: noticed on each new connection, by the id that a Redis draws at every start.

A server that kept its data on disk may come back with what it held minutes ago, and pools connect
again without a word.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import redis

_log = logging.getLogger("telegram_hybrid.redis")
_RUN_ID = re.compile(rb"run_id:([0-9a-f]+)")


class Restarts:
    """Which run of the server its clients talk to, and who is told that there is another."""

    def __init__(self) -> None:
        self._met: tuple[object, bytes] | None = None
        self._observers: list[Callable[[], object]] = []

    def observe(self, observer: Callable[[], object]) -> None:
        """Have `observer()` called for each restart, before the first command after it.

        It is called in any thread: keep it short. Two threads may tell it of the same restart.
        """
        self._observers.append(observer)

    def met(self, place: object, run_id: bytes) -> None:
        """A connection was made to that run; another place is no restart but a failover."""
        before = self._met
        if before is not None and before[0] == place and before[1] != run_id:
            for observer in list(self._observers):
                try:
                    observer()
                except Exception:  # noqa: BLE001  (its own business, not the caller's)
                    _log.exception("an observer of Redis' restarts failed")
        self._met = (place, run_id)  # not before: who is interrupted has it told again

    def greet(self, connection: Any) -> None:
        """What redis-py does on a new connection, and then: ask for the run."""
        connection.on_connect()
        self.ask(connection, None)

    def ask(self, connection: Any, place: object) -> None:
        """Ask the server at `place`, on a connection that is ready, which run it is."""
        connection.send_command("INFO", "server", check_health=False)
        try:
            said = connection.read_response(disable_decoding=True)
        except redis.ResponseError as error:  # this user may not ask
            _log.debug("Redis does not say which run it is: %s", error)
            return
        found = _RUN_ID.search(said if isinstance(said, bytes) else str(said).encode())
        if found:
            self.met(place, found[1])
