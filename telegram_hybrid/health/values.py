"""What `check` returns: frozen values without any secret (P12), ready for JSON."""

from __future__ import annotations

from enum import StrEnum

import attrs


class State(StrEnum):
    """What a service's condition means for those who use the library, from good to bad.

    DEGRADED: everything works, but not the way it was set up, and one more loss may end that.
    DOWN: something that the library is there for does not work.
    """

    OK = "ok"
    NOT_CONFIGURED = "not configured"
    DEGRADED = "degraded"
    DOWN = "down"


@attrs.frozen(slots=True, kw_only=True)
class Node:
    """One of several servers of a service: a sentinel, or a replica as its master sees it.

    `lag_seconds` is how long ago it last confirmed what it has (for PostgreSQL: how long a write
    takes to be replayed there), `lag_bytes` how much of the log it has not confirmed; None: not
    told. `why` says what is wrong with it.
    """

    address: str
    reachable: bool
    lag_seconds: float | None = None
    lag_bytes: int | None = None
    why: str = ""


@attrs.frozen(slots=True, kw_only=True)
class Queue:
    """A queue on the broker: how many events wait in it for a consumer, and who consumes."""

    name: str
    ready: int
    consumers: int


@attrs.frozen(slots=True, kw_only=True)
class Outbox:
    """What is not published yet, for how many seconds the oldest of it waits (None: nothing
    does), and how many events were given up for good, by relays or consumers."""

    events: int
    oldest_seconds: float | None
    dead_letters: int


@attrs.frozen(slots=True, kw_only=True)
class ServiceHealth:
    """One service. `reachable` is whether it answered, `state` what follows from it, `why` the
    reason of any state but OK, for people.

    `seconds` is the time from knocking to its answer. `role` is "primary" or "replica" for
    PostgreSQL, "master" or "replica" for Redis. `via` says how the service is used: "pooler" or
    "direct" for PostgreSQL, "sentinel" or "direct" for Redis. `lag_seconds` is a replica's own.
    `nodes` are its replicas, or the sentinels. What does not apply, or was not told, is None.
    """

    name: str
    state: State
    reachable: bool = False
    why: str = ""
    seconds: float | None = None
    address: str | None = None
    version: str | None = None
    role: str | None = None
    via: str | None = None
    lag_seconds: float | None = None
    nodes: tuple[Node, ...] = ()
    queues: tuple[Queue, ...] = ()

    def __str__(self) -> str:
        took = f" in {self.seconds * 1000:.0f} ms" if self.seconds is not None else ""
        return f"{self.name} {self.state}{took}{f': {self.why}' if self.why else ''}"


@attrs.frozen(slots=True, kw_only=True)
class Health:
    """All services, always the same five, in this order: postgresql, pgbouncer, redis, sentinel,
    broker. `outbox` is None where the database could not tell.

    `health["redis"]` is one of them; KeyError for another name.
    """

    services: tuple[ServiceHealth, ...]
    outbox: Outbox | None = None

    @property
    def state(self) -> State:
        """The worst state of any service; what is not configured counts as OK."""
        order = (State.OK, State.DEGRADED, State.DOWN)
        return max((each.state for each in self.services if each.state in order), key=order.index)

    def __getitem__(self, name: str) -> ServiceHealth:
        for each in self.services:
            if each.name == name:
                return each
        raise KeyError(name)
