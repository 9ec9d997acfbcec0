"""The plan of a campaign: which faults, in which order, how far apart; the same for a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from enum import StrEnum

import attrs


class Fault(StrEnum):
    """What can be done to a running system."""

    KILL_WRITER = "writer killed"
    KILL_RELAY = "relay killed"
    KILL_CONSUMER = "consumer killed"
    CUT_BROKER = "broker connections cut"
    CUT_DATABASE = "database connections cut"
    MUTE_BROKER = "broker mute, then cut"
    MUTE_DATABASE = "database mute, then cut"
    KILL_BROKER = "RabbitMQ killed and started"
    RESTART_DATABASE = "PostgreSQL stopped and started"
    CRASH_DATABASE = "PostgreSQL crashed and started"
    FULL_QUEUE = "full queue rejects"
    UNROUTABLE = "channel without a binding"
    STEAL_LEASE = "leases stolen"
    EXPIRE_LEASE = "leases expired"
    FREEZE_RELAY = "relay stopped past its lease"
    LATE_COMMIT = "lower number committed after a higher one"


#: How many of 110 faults are of each kind. What takes seconds is rare.
SHARES = {
    Fault.KILL_WRITER: 14,
    Fault.KILL_RELAY: 14,
    Fault.KILL_CONSUMER: 14,
    Fault.CUT_BROKER: 11,
    Fault.CUT_DATABASE: 9,
    Fault.MUTE_BROKER: 6,
    Fault.MUTE_DATABASE: 6,
    Fault.KILL_BROKER: 2,
    Fault.RESTART_DATABASE: 1,
    Fault.CRASH_DATABASE: 1,
    Fault.FULL_QUEUE: 6,
    Fault.UNROUTABLE: 6,
    Fault.STEAL_LEASE: 7,
    Fault.EXPIRE_LEASE: 4,
    Fault.FREEZE_RELAY: 2,
    Fault.LATE_COMMIT: 7,
}


@attrs.frozen(slots=True)
class Step:
    """Wait `pause` seconds, then do it; `seed` decides to whom."""

    fault: Fault
    pause: float
    seed: int


def plan(seed: int, count: int) -> Iterator[Step]:
    """Yield `count` steps: every kind in its share, and at least once, in random order."""
    rng = random.Random(seed)
    whole = sum(SHARES.values())
    faults = [kind for kind in Fault for _ in range(max(1, SHARES[kind] * count // whole))]
    faults += rng.choices(list(SHARES), [*SHARES.values()], k=max(0, count - len(faults)))
    rng.shuffle(faults)
    for fault in faults:
        yield Step(fault, rng.uniform(0.1, 0.5), rng.getrandbits(32))
