"""Wake-ups: how a relay learns that something was committed, before its next poll."""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

from redis.exceptions import RedisError


class Wake(Protocol):
    """A source of wake-ups. Losing one costs a poll interval, never an event."""

    def wait(self, timeout: float, others: Sequence[int] = ()) -> bool:
        """Sleep for up to `timeout` seconds; True if woken.

        It returns early, too, when one of `others`, files by their numbers, can be read.
        """

    def notify(self) -> None:
        """Wake the waiting thread of this process."""

    def close(self) -> None:
        """Give up connections; waiting again is legal."""


class LocalWake:
    """Wake-ups within this process; without anyone who notifies, plain polling."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._there.setblocking(False)

    def wait(self, timeout: float, others: Sequence[int] = ()) -> bool:
        """Sleep for up to `timeout` seconds; True if woken."""
        here = self._here.fileno()
        return here in readable(timeout, (here, *others)) and self.woken()

    def fileno(self) -> int:
        """What can be read once it was notified."""
        return self._here.fileno()

    def woken(self) -> bool:
        """Whether it was notified since this was last asked."""
        with suppress(BlockingIOError):
            return bool(self._here.recv(4096))
        return False

    def notify(self) -> None:
        """Wake the waiting thread."""
        # A full buffer wakes as well.
        with suppress(BlockingIOError):
            self._there.send(b"!")

    def close(self) -> None:
        """Nothing to give up."""

    def __del__(self) -> None:
        self._here.close()
        self._there.close()


class RedisWake:
    """Wake-ups through Redis pub/sub, where writers PUBLISH to `topic` after their commits.

    `client` is a redis-py client, one that gives up soon: its retries delay the polling. While
    Redis is away this is plain polling, and it subscribes again at most once a second.
    """

    _AGAIN = 1.0  # Seconds between two tries to subscribe.

    def __init__(self, client: Any, topic: str) -> None:
        self._client = client
        self._topic = topic
        self._pubsub: Any = None
        self._subscribe_at = 0.0
        self._local = LocalWake()

    def wait(self, timeout: float, others: Sequence[int] = ()) -> bool:
        """Sleep for up to `timeout` seconds; True if woken."""
        try:
            if self._pubsub is None and monotonic() >= self._subscribe_at:
                self._subscribe_at = monotonic() + self._AGAIN
                self._pubsub = self._client.pubsub()
                self._pubsub.subscribe(self._topic)
            if self._pubsub is None:
                return self._local.wait(timeout, others)
            there, here = self._pubsub.connection._sock.fileno(), self._local.fileno()
            ready = readable(timeout, (there, here, *others))
            # Both: what is heard is read to its end, or it would not show at its socket again.
            return any([there in ready and self._heard(), here in ready and self._local.woken()])
        except (RedisError, OSError, AttributeError):
            # AttributeError: a connection that was closed has no socket.
            self.close()
            return self._local.wait(timeout, others)

    def notify(self) -> None:
        """Wake the waiting thread of this process."""
        self._local.notify()

    def close(self) -> None:
        """Unsubscribe."""
        if self._pubsub is not None:
            with suppress(RedisError, OSError):
                self._pubsub.close()
            self._pubsub = None

    def _heard(self) -> bool:
        heard = False
        # One look serves them all. The answer to the subscription is news as well: what was
        # published before it was not heard.
        while self._pubsub.get_message(timeout=0) is not None:
            heard = True
        return heard


def readable(timeout: float, files: Sequence[int]) -> set[int]:
    """Wait until some of these can be read, and return them; one that is closed can."""
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return {file for file, _ in poll.poll(max(0, round(timeout * 1000)))}
