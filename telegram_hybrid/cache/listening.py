"""Listening for fills: how a reader that waits for another process's load is woken."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

_log = logging.getLogger("telegram_hybrid.cache")
#: Seconds after which a reader looks for itself, while nobody could tell it.
_DEAF = 0.02
#: Seconds without a waiting reader after which the subscription is given up.
_IDLE = 30.0
_SLICE = 0.5
#: Seconds after which a waiting reader asks again whether the fill is still to come: from a Redis
#: that died nothing will be heard.
_DOUBT = 1.0


class Fills:
    """Wakes readers when a key that they wait for was filled, or its lease given up or taken.

    One subscription to `topic`, from the first wait until nobody has waited for a while.
    """

    def __init__(self, redis: Redis, topic: str) -> None:
        self._redis = redis
        self._topic = topic
        self._lock = Lock()
        self._waiting: dict[bytes, list[Event]] = {}
        self._ear: _Ear | None = None

    def wait(self, key: str, seconds: float, is_leased: Callable[[], bool]) -> None:
        """Return when `key` was filled or given up, or after `seconds`.

        `is_leased` asks whether it is still to come: what happened before we listened went
        unheard. While nothing can be heard, this returns early, for the reader to look itself.
        """
        name, woken = key.encode(), Event()
        with self._lock:
            self._waiting.setdefault(name, []).append(woken)
            if self._ear is None or not self._ear.is_alive():
                self._ear = _Ear(self._redis, self._topic, self._heard)
                self._ear.start()
            ear = self._ear
        try:
            if not ear.listens.wait(min(seconds, 1.0)):
                woken.wait(min(seconds, _DEAF))
            else:
                until = monotonic() + seconds
                while is_leased() and (left := until - monotonic()) > 0:
                    if woken.wait(min(left, _DOUBT)):
                        return
        finally:
            with self._lock:
                self._waiting[name].remove(woken)
                if not self._waiting[name]:
                    del self._waiting[name]

    def wake_all(self) -> None:
        """Have all that wait look for themselves."""
        self._wake(None)

    def close(self) -> None:
        """Stop listening; a later wait starts again."""
        with self._lock:
            ear, self._ear = self._ear, None
        self._wake(None)
        if ear is not None:
            ear.stop()

    def _heard(self, name: bytes | None) -> bool:
        """Wake who waits for `name`, or for anything; return whether anybody still waits."""
        self._wake(name)
        with self._lock:
            return bool(self._waiting)

    def _wake(self, name: bytes | None) -> None:
        with self._lock:
            events = [
                event
                for key, waiting in self._waiting.items()
                if name is None or key == name
                for event in waiting
            ]
        for event in events:
            event.set()


class _Ear(Thread):
    """The subscribed thread. It ends with its connection, or when nobody waits any more."""

    def __init__(self, redis: Redis, topic: str, heard: Callable[[bytes | None], bool]) -> None:
        super().__init__(name="telegram_hybrid fills", daemon=True)
        self._redis = redis
        self._topic = topic
        self._heard = heard
        self._stopped = False
        self.listens = Event()

    def run(self) -> None:
        pubsub: Any = None
        try:
            pubsub = self._redis.pubsub()  # type: ignore[no-untyped-call]
            pubsub.subscribe(self._topic)
            self._listen(pubsub)
        except (RedisError, OSError) as error:
            _log.info("not told of fills: %s", error)
        finally:
            self.listens.clear()
            self._heard(None)
            if pubsub is not None:
                with suppress(RedisError, OSError):
                    pubsub.close()

    def stop(self) -> None:
        self._stopped = True
        self.join(2 * _SLICE)

    def _listen(self, pubsub: Any) -> None:
        waited_at = monotonic()
        while not self._stopped and monotonic() - waited_at < _IDLE:
            told = pubsub.get_message(timeout=_SLICE)
            if told is None:
                if self._heard_nothing():
                    waited_at = monotonic()
            elif told["type"] == "subscribe":
                self.listens.set()
            elif self._heard(told["data"]):
                waited_at = monotonic()

    def _heard_nothing(self) -> bool:
        return self._heard(b"")
