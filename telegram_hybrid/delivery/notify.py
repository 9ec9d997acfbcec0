"""Wake-ups through PostgreSQL, where there is no Redis: NOTIFY after commits, LISTEN in relays.

A NOTIFY takes a lock of the whole cluster until its transaction is committed, so it is never part
of a writer's. Here a thread does it after their commits, for all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event, Thread

from sqlalchemy import Engine, text

from telegram_hybrid.cache.wake import Wake
from telegram_hybrid.connect.postgres import transaction
from telegram_hybrid.connect.postgres.listening import notifications
from telegram_hybrid.delivery.wake import LocalWake
from telegram_hybrid.delivery.worker import log
from telegram_hybrid.errors import HybridError

#: Seconds until listening is tried again: at first, and at most.
_AGAIN, _AGAIN_MOST = 1.0, 60.0


def topic_of(schema: str) -> str:
    """The name that writers notify and relays listen to."""
    return f"{schema}.wake"


def notifier(engine: Engine, schema: str) -> Wake:
    """What wakes relays that listen; a transaction of its own each time."""
    values = {"topic": topic_of(schema)}

    def tell() -> bool:
        try:
            with transaction(engine) as connection:
                connection.execute(text(_LAZY))
                connection.execute(text(_NOTIFY), values)
        except HybridError as error:
            log.info("relays are not woken: %s", error)
            return False
        return True

    return Wake(tell)


class PostgresWake(LocalWake):
    """Wake-ups by `notifier`s; `engine` goes past the pooler, and looks for no connection long.

    A thread listens on a connection of its own, so one that cannot be had delays nobody. Without
    it this is plain polling.
    """

    def __init__(self, engine: Engine, schema: str) -> None:
        super().__init__()
        self._engine = engine
        self._topic = topic_of(schema)
        self._stop = Event()
        self._thread: Thread | None = None

    def wait(self, timeout: float, others: Sequence[int] = ()) -> bool:
        """Sleep for up to `timeout` seconds; True if woken."""
        if self._thread is None or not self._thread.is_alive():
            self._stop = Event()
            self._thread = Thread(
                target=self._listen, args=[self._stop], name="telegram_hybrid.listen", daemon=True
            )
            self._thread.start()
        return super().wait(timeout, others)

    def close(self) -> None:
        """Have the thread end; waiting again is legal."""
        self._stop.set()
        self._thread = None

    def _listen(self, stop: Event) -> None:
        pause = _AGAIN
        while not stop.is_set():
            try:
                for _ in notifications(self._engine, self._topic, stop):
                    # The first is news as well: what was notified before it was not heard.
                    self.notify()
                    pause = _AGAIN
            except HybridError as error:
                log.info("relay: polling only, for %g s: %s", pause, error)
                stop.wait(pause)
                pause = min(2 * pause, _AGAIN_MOST)


# Nobody needs it to survive a crash, and nobody else's NOTIFY has to wait for the disk.
_LAZY = "SET LOCAL synchronous_commit TO off"
_NOTIFY = "SELECT pg_notify(:topic, '')"
