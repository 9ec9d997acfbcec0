"""Wake-ups: how a relay learns that something was committed, before its next poll."""

from __future__ import annotations

from contextlib import suppress
from threading import Event
from time import monotonic
from typing import Any, Protocol

from redis.exceptions import RedisError


class Wake(Protocol):
    """A source of wake-ups. Losing one costs a poll interval, never an event."""

    def wait(self, timeout: float) -> bool:
        """Sleep for up to `timeout` seconds; True if woken."""

    def notify(self) -> None:
        """Wake the waiting thread of this process."""

    def close(self) -> None:
        """Give up connections."""


class LocalWake:
    """Wake-ups within this process; without anyone who notifies, plain polling."""

    def __init__(self) -> None:
        self._event = Event()

    def wait(self, timeout: float) -> bool:
        """Sleep for up to `timeout` seconds; True if woken."""
        woken = self._event.wait(timeout)
        self._event.clear()
        return woken

    def notify(self) -> None:
        """Wake the waiting thread."""
        self._event.set()

    def close(self) -> None:
        """Nothing to give up."""


class RedisWake:
    """Wake-ups through Redis pub/sub, where writers PUBLISH to `topic` after their commits.

    `client` is a redis-py client, one that gives up soon: its retries delay the polling. While
    Redis is away this is plain polling, and it subscribes again at most once a second.
    """

    _SLICE = 0.2  # Seconds: how soon `notify` is noticed.
    _AGAIN = 1.0  # Seconds between two tries to subscribe.

    def __init__(self, client: Any, topic: str) -> None:
        self._client = client
        self._topic = topic
        self._pubsub: Any = None
        self._subscribe_at = 0.0
        self._local = LocalWake()

    def wait(self, timeout: float) -> bool:
        """Sleep for up to `timeout` seconds; True if woken."""
        left = timeout
        while left > 0:
            piece = min(left, self._SLICE)
            left -= piece
            if self._listen(piece) or self._local.wait(0):
                return True
        return False

    def notify(self) -> None:
        """Wake the waiting thread of this process."""
        self._local.notify()

    def close(self) -> None:
        """Unsubscribe."""
        if self._pubsub is not None:
            with suppress(RedisError, OSError):
                self._pubsub.close()
            self._pubsub = None

    def _listen(self, seconds: float) -> bool:
        try:
            if self._pubsub is None:
                if monotonic() < self._subscribe_at:
                    return self._local.wait(seconds)
                self._subscribe_at = monotonic() + self._AGAIN
                self._pubsub = self._client.pubsub(ignore_subscribe_messages=True)
                self._pubsub.subscribe(self._topic)
            if self._pubsub.get_message(timeout=seconds) is None:
                return False
            # One round serves them all.
            while self._pubsub.get_message(timeout=0) is not None:
                continue
        except (RedisError, OSError):
            self.close()
            return self._local.wait(seconds)
        return True
