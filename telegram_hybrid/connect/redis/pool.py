"""Pool: redis-py's, with what is done at every use of a connection kept short."""

from __future__ import annotations

from threading import Condition, RLock
from typing import Any

import redis
from redis.connection import ConnectionPool

from telegram_hybrid.connect.redis.client import Guide, MasterGuide
from telegram_hybrid.connect.redis.discovery import Address
from telegram_hybrid.connect.redis.failures import Misconfigured, NotConnected, explain
from telegram_hybrid.errors import HybridError

#: Seconds for which a thread waits for a connection.
_PATIENCE = 1.0


class Pool(ConnectionPool):
    """A pool whose failures to connect are told apart from all others, and explained.

    With a guide, connections to a former master are dropped as soon as there is another. When all
    connections are in use, threads wait for one for a while: it is no fault of Redis.

    redis-py keeps records for its metrics at every use of a connection, and tells its listeners.
    Those took longer than everything else here, and are left out.
    """

    def __init__(self, connection_class: type[Any], *, place: str, **options: Any) -> None:
        self._place_name = place
        self.guide: Guide | None = options.get("guide")
        self.restarts = self.guide.restarts if isinstance(self.guide, MasterGuide) else None
        super().__init__(connection_class, **options)
        if self.guide is not None:
            self.guide.directory.observe(self._hang_up)

    def get_connection(self, *_args: Any, **_options: Any) -> Any:
        """Raises `NotConnected` or `Misconfigured` if there is none to be had."""
        self._checkpid()  # redis-py's: after a fork nothing is in use
        connection = self._take()
        try:
            connection.connect()
            if not _is_quiet(connection):
                connection.disconnect()
                connection.connect()
        except BaseException as error:
            connection.disconnect()  # it may have been greeted by half
            self.release(connection)
            if isinstance(error, HybridError) or not isinstance(error, redis.RedisError | OSError):
                raise
            detail, permanent = explain(error, self.connection_kwargs)
            kind = Misconfigured if permanent else NotConnected
            raise kind(f"Redis at {self._place_name}: {detail}") from error
        return connection

    def release(self, connection: Any) -> None:
        """Give a connection back, for who waits for one."""
        self._checkpid()
        with self._lock:
            if connection in self._in_use_connections and not connection.should_reconnect():
                self._in_use_connections.remove(connection)
                self._available_connections.append(connection)
            else:
                super().release(connection)
        if self._waiting:
            with self._returned:
                self._returned.notify()

    def reset(self) -> None:
        """As in redis-py: at first, and in a forked child, where nobody frees the parent's lock."""
        self._lock = RLock()
        self._returned, self._waiting = Condition(self._lock), 0
        super().reset()

    def close(self) -> None:
        """Close all connections, and the directory if these are its users."""
        super().close()
        if self.guide is not None:
            self.guide.directory.close()

    def _take(self) -> Any:
        """A connection that is nobody's, connected or not."""
        with self._lock:
            idle = self._available_connections
            if not idle and self._created_connections >= self.max_connections:
                self._wait()
            connection = idle.pop() if idle else self.make_connection()
            self._in_use_connections.add(connection)
        return connection

    def _wait(self) -> None:
        """Wait until a connection is given back; the lock is held, but not meanwhile."""
        self._waiting += 1
        try:
            if not self._returned.wait_for(lambda: self._available_connections, _PATIENCE):
                raise NotConnected(
                    f"Redis at {self._place_name}: all {self.max_connections} connections are in "
                    "use; set max_connections in the URL for more"
                )
        finally:
            self._waiting -= 1

    def _hang_up(self, _epoch: int, _address: Address) -> None:
        with self._lock:
            connections = list(self._in_use_connections)
        for connection in connections:
            connection.hang_up()


def _is_quiet(connection: Any) -> bool:
    """Whether a connection has nothing to be read: no reply of nobody's, no end."""
    try:
        return not connection.can_read()
    except (redis.ConnectionError, redis.TimeoutError, OSError):
        return False
