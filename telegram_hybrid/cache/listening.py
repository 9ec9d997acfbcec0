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
        self.begin()

    def begin(self) -> None:
        """Forget who waits and listens: they are threads of a parent process."""
        self._lock = Lock()
        self._waiting: dict[bytes, list[Event]] = {}
        self._ear: _Ear | None = None

    def wait(self, key: str, seconds: float, is_awaited: Callable[[], bool]) -> None:
        """Return when `key` was filled or given up, or after `seconds`.

        `is_awaited` asks whether it is still to come and will be told of: what happened before we
        listened went unheard. While nothing can be heard, this returns early, for the reader to
        look itself.
        """
        name, woken = key.encode(), Event()
        with self._lock:
            self._waiting.setdefault(name, []).append(woken)
            ear = self._ear = self._ear or self._listen()
        try:
            if ear is not None:
                ear.settled.wait(min(seconds, 1.0))
            if ear is None or not ear.hears:
                woken.wait(min(seconds, _DEAF))
            else:
                until = monotonic() + seconds
                while is_awaited() and (left := until - monotonic()) > 0:
                    if woken.wait(min(left, _DOUBT)):
                        return
        finally:
            with self._lock:
                self._waiting[name].remove(woken)
                if not self._waiting[name]:
                    del self._waiting[name]

    def wake_all(self) -> None:
        """Have all that wait look for themselves."""
        self._heard(None)

    def close(self) -> None:
        """Stop listening; a later wait starts again."""
        with self._lock:
            ear, self._ear = self._ear, None
        self._heard(None)
        if ear is not None:
            ear.stop()

    def _listen(self) -> _Ear | None:
        ear = _Ear(self._redis, self._topic, self._heard, self._ended)
        try:
            ear.start()
        except RuntimeError as error:  # no more threads, or the interpreter is ending
            _log.info("not told of fills: %s", error)
            return None
        return ear

    def _ended(self, ear: _Ear) -> None:
        """Have whoever comes now listen anew, and whoever waits look itself."""
        with self._lock:
            if self._ear is ear:
                self._ear = None
        self._heard(None)

    def _heard(self, name: bytes | None) -> bool:
        """Wake who waits for `name`, or for anything; return whether anybody still waits."""
        with self._lock:
            lists = self._waiting.values() if name is None else [self._waiting.get(name, [])]
            for event in (event for events in lists for event in events):
                event.set()
            return bool(self._waiting)


class _Ear(Thread):
    """The subscribed thread. It ends with its connection, or when nobody waits any more."""

    def __init__(
        self,
        redis: Redis,
        topic: str,
        heard: Callable[[bytes | None], bool],
        ended: Callable[[_Ear], object],
    ) -> None:
        super().__init__(name="telegram_hybrid fills", daemon=True)
        self._redis = redis
        self._topic = topic
        self._heard = heard
        self._ended = ended
        self._stopped = False
        self._pubsub: Any = None
        #: Set when it is decided whether this `hears`.
        self.settled = Event()
        self.hears = False

    def run(self) -> None:
        """Subscribe, and tell what is heard until the end."""
        pubsub = self._pubsub = self._redis.pubsub()  # type: ignore[no-untyped-call]
        try:
            pubsub.subscribe(self._topic)
            self._listen(pubsub)
        except Exception as error:  # noqa: BLE001  (redis-py raises all sorts when another thread
            # closes its connection; readers look for themselves then)
            _log.info("not told of fills: %s", error)
        finally:
            self.hears = False
            self._ended(self)
            self.settled.set()
            with suppress(Exception):
                pubsub.close()

    def stop(self) -> None:
        self._stopped = True
        if self.hears:
            with suppress(RedisError, OSError):
                self._pubsub.unsubscribe()  # its reply cuts the wait for a message short
        self.join(2 * _SLICE)

    def _listen(self, pubsub: Any) -> None:
        waited_at = monotonic()
        while not self._stopped and monotonic() - waited_at < _IDLE:
            told = pubsub.get_message(timeout=_SLICE)
            if told is None or told["type"] == "message":
                if self._heard(told["data"] if told is not None else b""):
                    waited_at = monotonic()
            elif told["type"] == "subscribe":
                if self.hears:  # redis-py connected anew: what was said meanwhile went unheard
                    self._heard(None)
                self.hears = True
                self.settled.set()
