"""Redis clients: made from a URL, quick to fail, following Sentinel or the direct host."""

from __future__ import annotations

from typing import Any

import redis

from telegram_hybrid.connect.redis.asking import MOST, Command, ask
from telegram_hybrid.connect.redis.client import (
    Guide,
    MasterGuide,
    PatientRedis,
    ReplicaGuide,
    guided,
    timeout_within,
)
from telegram_hybrid.connect.redis.directory import Directory, View
from telegram_hybrid.connect.redis.discovery import Address, Answer, NoAnswer
from telegram_hybrid.connect.redis.failures import Misconfigured, NoReply, NotConnected
from telegram_hybrid.connect.redis.pool import Pool
from telegram_hybrid.connect.redis.questions import Questions
from telegram_hybrid.connect.redis.restarts import Restarts
from telegram_hybrid.connect.redis.url import TIMEOUT, Target, parse
from telegram_hybrid.errors import ConfigurationError

#: Seconds within which a call succeeds, or fails, while Redis fails over.
DEADLINE = 5.0

__all__ = [
    "DEADLINE",
    "MOST",
    "TIMEOUT",
    "Address",
    "Answer",
    "Command",
    "Directory",
    "Misconfigured",
    "NoAnswer",
    "NoReply",
    "NotConnected",
    "Restarts",
    "Target",
    "View",
    "ask",
    "ask_sentinels",
    "directory_of",
    "open_redis",
    "open_replica",
    "parse",
    "restarts_of",
]


def open_redis(url: str, *, deadline: float | None = DEADLINE) -> redis.Redis:
    """Make a client for redis://, rediss:// (TLS), unix:// or redis+sentinel:// (see `url`).

    No I/O until its first command. Options of redis-py may follow in the query
    (`?db=1&socket_timeout=1`). Replies are bytes. Close it after use.

    Calls survive a failover: they are repeated until `deadline` seconds have passed, as far as
    that is safe (`repeating` says which commands are). None repeats nothing, for whoever has
    somewhere else to go, as the cache has the database. A `socket_timeout` of more than a quarter
    of the deadline is cut to that. Connecting raises `NotConnected` or `Misconfigured`, and a
    deadline that passed `NoReply`: all of them redis-py's ConnectionError, too. Raises
    `ConfigurationError`, without the URL's secrets, if the URL makes no client.
    """
    target = parse(url)
    guide = MasterGuide(Directory(target)) if target.sentinels else None
    return _client(target, guide, deadline)


def open_replica(url: str, *, max_lag: float, deadline: float | None = DEADLINE) -> redis.Redis:
    """Make a client for reads that may be `max_lag` seconds old, from a redis+sentinel:// URL.

    It reads from replicas that provably had all writes acknowledged `max_lag` seconds ago, and
    passes over the mute, the refusing and the lagging; from the master if none is left. Replicas
    are looked at every quarter of a second, so less than 0.6 means the master most of the time.
    """
    target = parse(url)
    if not target.sentinels:
        raise ConfigurationError("TELEGRAM_REDIS_URL names no sentinels, so no replica is known")
    return _client(target, ReplicaGuide(Directory(target), max_lag), deadline)


def directory_of(client: redis.Redis) -> Directory | None:
    """The directory that a client follows: its `view()`, and `observe` for changes of the master.

    None for a client of one server.
    """
    pool = client.connection_pool
    return pool.guide.directory if isinstance(pool, Pool) and pool.guide is not None else None


def restarts_of(client: redis.Redis) -> Restarts | None:
    """Where to be told that a client's server was restarted where it is; None for replicas."""
    pool = client.connection_pool
    return pool.restarts if isinstance(pool, Pool) else None


def ask_sentinels(target: Target, seconds: float) -> list[Answer | NoAnswer]:
    """Ask all sentinels of `target` at once, on new connections; `seconds` at most."""
    questions = Questions(target, timeout=seconds, patience=seconds)
    try:
        return questions.sentinels()
    finally:
        questions.close()


def _client(target: Target, guide: Guide | None, deadline: float | None) -> redis.Redis:
    options: dict[str, Any] = dict(target.options)
    if deadline is not None:
        for name in ("socket_timeout", "socket_connect_timeout"):
            options[name] = timeout_within(deadline, options[name])
    if target.max_connections is not None:
        options["max_connections"] = target.max_connections
    pool = _pool(target, guide, options)
    if deadline is None:
        return redis.Redis.from_pool(pool)
    client = PatientRedis.from_pool(pool)
    vars(client)["deadline"] = deadline
    return client


def _pool(target: Target, guide: Guide | None, options: dict[str, Any]) -> Pool:
    if guide is None:
        place = options.get("path") or f"{options.get('host')}:{options.get('port', 6379)}"
        restarts = Restarts()
        options["redis_connect_func"] = restarts.greet
        pool = Pool(target.connection_class, place=str(place), **options)
        pool.restarts = restarts
        return pool
    place = ",".join(map(str, target.sentinels))
    options |= {"guide": guide, "host": "sentinel", "port": 0}
    return Pool(guided(target.connection_class), place=f"{target.master_name} ({place})", **options)
