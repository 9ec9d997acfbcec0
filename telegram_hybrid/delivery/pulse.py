"""Pulse: signs of life to RabbitMQ from a consumer that is busy with something else.

RabbitMQ ends a connection on which it has heard nothing for two heartbeats, and hands out again
all that was unacknowledged there. Each time counts against the delivery limit of every event that
was prefetched: handlers that take minutes, or a database that does not answer, would have events
given up that nobody has ever handled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from types import TracebackType

import kombu

from telegram_hybrid.connect.broker import is_amqp, translated_errors
from telegram_hybrid.delivery.worker import log
from telegram_hybrid.errors import BrokerError

#: How many heartbeats are sent in the time in which the broker expects one.
_RATE = 3


class Pulse:
    """Of one connection: within `with pulse:` a thread sends its heartbeats, and whoever else uses
    it there does so within `with pulse.used():`.

    Without heartbeats, and on Redis, which knows none, there is no thread.
    """

    def __init__(self, connection: kombu.Connection) -> None:
        self._connection = connection
        self._busy = False
        self._lock = Lock()
        self._over = Event()
        seconds = connection.connection.heartbeat if is_amqp(connection) else 0
        if seconds:
            Thread(
                target=self._beat, args=[seconds / _RATE], name="telegram_hybrid.pulse", daemon=True
            ).start()

    def __enter__(self) -> None:
        self._busy = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:  # from here on it sends nothing
            self._busy = False

    @contextmanager
    def used(self) -> Iterator[None]:
        """Have the connection alone. Raises `BrokerError` for what it raises."""
        with self._lock, translated_errors(self._connection):
            yield

    def close(self) -> None:
        """Have the thread end."""
        self._over.set()

    def _beat(self, seconds: float) -> None:
        while not self._over.wait(seconds):
            try:
                with self.used():
                    if self._busy:
                        self._connection.connection.send_heartbeat()
            except BrokerError as error:
                # The consumer finds out by itself, when it uses the connection again.
                log.info("consumer: no more heartbeats: %s", error)
                return
