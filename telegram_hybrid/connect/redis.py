"""Redis clients: made from a URL, quick to fail, never retrying behind our back."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, parse_url
from redis.retry import Retry

from telegram_hybrid.errors import ConfigurationError

#: Seconds for one reply and for one connection attempt: the database answers within that time,
#: so waiting longer for a cache is never worth it.
TIMEOUT = 0.25


def open_redis(url: str) -> redis.Redis:
    """Make a client for redis://, rediss:// (TLS) or unix://; no I/O until its first command.

    Options of redis-py may follow in the query (`?db=1&socket_timeout=1`). Replies are bytes. A
    failed command is not repeated: the cache has the database to go to. Close it after use.

    Raises `ConfigurationError`, without the URL's secrets, if the URL makes no client.
    """
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "health_check_interval": 0,
        "client_name": "telegram_hybrid",
    }
    problem = _problem_of(url)
    if problem is None:
        try:
            options |= parse_url(url)  # type: ignore[no-untyped-call]
            options |= {"decode_responses": False, "retry": Retry(NoBackoff(), 0)}
            pool = ConnectionPool(**options)
            pool.connection_class(**pool.connection_kwargs)  # opens nothing, refuses bad options
        except (TypeError, ValueError, redis.RedisError):
            problem = "has an option that redis-py does not know or cannot use"
    # A parser's own words may quote a password (redis://user:password has a port for it), so they
    # are neither repeated nor chained: this is raised outside of every except block.
    if problem is not None:
        raise ConfigurationError(f"TELEGRAM_REDIS_URL {problem}")
    return redis.Redis.from_pool(pool)


def _problem_of(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is malformed; expected redis://[user:password@]host:port/db"
    if parts.scheme not in ("redis", "rediss", "unix"):
        return "must begin with redis://, rediss:// or unix://"
    if parts.scheme == "unix":
        return None if parts.path else "names no socket; expected unix:///path/to/redis.sock"
    if not host:
        return "names no host; expected redis://[user:password@]host:port/db"
    if not parts.path.strip("/").isdigit() and parts.path.strip("/"):
        return "ends with a database that is not a number; expected redis://host:port/0"
    return None
