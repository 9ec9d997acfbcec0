"""The steps of processes beyond the protocol's own requests, and what all processes share."""

from collections.abc import Callable, Generator
from typing import Any

import attrs

from cachelab.history import Log
from cachelab.redis_model import RedisModel
from telegram_hybrid.cache.requests import Load
from telegram_hybrid.model import EventType

Steps = Generator[Any, Any, Any]
Frozen = tuple[tuple[str, tuple[object, float | None]], ...]


@attrs.frozen
class Lock:
    """A writer's first step: it waits for the channel's lock. Reply: the log so far."""


@attrs.frozen
class Commit:
    """A writer's step: the row becomes visible and the lock is free."""

    message_id: int
    kind: EventType


@attrs.frozen
class Unlock:
    """The step of a server that finds a dead writer's connection: the lock is free."""


@attrs.frozen
class Outbox:
    """The relay's step: it waits for commit number `index`. Reply: what that wrote."""

    index: int


@attrs.frozen
class Choose:
    """Something outside of the protocol decides: every option is explored."""

    options: tuple[Any, ...]


@attrs.frozen
class Plain:
    """A step on Redis outside of the protocol: for the adversary and for naive caches."""

    do: Callable[[RedisModel], object]


@attrs.frozen
class Replicate:
    """The replica has everything up to now."""


@attrs.frozen
class Failover:
    """The replica becomes the master: later writes are lost, acknowledged or not.

    From here on every process goes past the cache, until `Replay`.
    """


@attrs.frozen
class Replay:
    """Every process repeats the invalidations that were acknowledged to it, and trusts hits again.

    `order` is "oldest first", "newest first", or "none" to repeat nothing.
    """

    order: str


@attrs.frozen
class CatchUp:
    """The standby of the database applies one more commit."""


@attrs.frozen
class Look:
    """The second part of a guarded load."""

    load: Load
    as_of: int


@attrs.frozen
class Rows:
    """The third part of a guarded load, if the lock was free: otherwise nobody keeps the rows."""

    load: Load
    as_of: int


@attrs.frozen
class Shared:
    """All that the processes share, as plain data."""

    log: Log
    locked: bool = False
    redis: Frozen = ()
    replica: Frozen = ()
    trusted: bool = True
    #: The highest version of which an invalidation was applied, and those acknowledged.
    applied: int = 0
    acknowledged: tuple[int, ...] = ()
    #: How many commits the standby has; None: loads are made from the primary.
    standby: int | None = None

    def get(self, key: str) -> bytes | None:
        value = dict(self.redis).get(key, (None, None))[0]
        return value if isinstance(value, bytes) else None
