"""Who is the Redis master: the decisions, without I/O.

`discover` is a generator: it yields what to ask next and is sent the reply, so that threads and
asyncio can perform the same one. The rules are Sentinel's own (redis.io, "High availability with
Redis Sentinel"): of two configurations the one with the higher config-epoch wins, and the
replica which an elected leader promotes is the master as soon as it says so itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from enum import Enum
from math import inf
from typing import Any

import attrs

#: Most nodes that are asked on the way from a replica to its master.
_HOPS = 4


@attrs.frozen(slots=True, order=True)
class Address:
    """A host (name or IP) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Silence(Enum):
    """Why a sentinel told us nothing."""

    UNREACHABLE = "does not answer"
    NOT_A_SENTINEL = "is a plain Redis, not a sentinel"
    UNKNOWN_MASTER = "does not know this master name"
    REFUSED = "does not let us in"


@attrs.frozen(slots=True)
class NoAnswer:
    """A sentinel that is of no use now."""

    sentinel: Address
    reason: Silence
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.sentinel} {self.reason.value}" + (f" ({self.detail})" if self.detail else "")


@attrs.frozen(slots=True)
class Answer:
    """What one sentinel said. `promoted` is the replica that it, as the leader, is promoting;
    `quorum` is how many sentinels must agree that a master is down."""

    sentinel: Address
    master: Address
    config_epoch: int
    failing_over: bool = False
    promoted: Address | None = None
    quorum: int = 0


@attrs.frozen(slots=True)
class Role:
    """What a node says of itself; `offset` counts bytes of replication.

    A replica names its `master` and whether it is `connected` to it; a master lists its replicas.
    """

    is_master: bool
    offset: int = 0
    master: Address | None = None
    connected: bool = True
    replicas: tuple[Address, ...] = ()


@attrs.frozen(slots=True)
class History:
    """Whose data a node holds: by its own replication id, and up to an offset by a `former` one.

    A replica that is promoted goes on under a new id from where it had followed its master's.
    "" if it is not known.
    """

    id: str = ""
    former: str = ""
    upto: int = -1


@attrs.frozen(slots=True)
class NoRole:
    """A node that did not tell its role. `permanent`: a setting is wrong, trying again is vain."""

    detail: str
    permanent: bool = False
    slow: bool = False


@attrs.frozen(slots=True)
class AskSentinels:
    """Request: ask all sentinels at once; the reply is a list of `Answer` and `NoAnswer`."""


@attrs.frozen(slots=True)
class AskRole:
    """Request: ask this node for its role; the reply is `Role` or `NoRole`."""

    address: Address


@attrs.frozen(slots=True)
class Found:
    """The master, proven by its role. `degraded` says why no sentinel vouches for it, or is "".

    `deposed` is whom it replaces, while the failover is still under way.
    """

    address: Address
    role: Role
    config_epoch: int = -1
    degraded: str = ""
    deposed: Address | None = None


@attrs.frozen(slots=True)
class Missing:
    """No master for now; `permanent`: until somebody changes a setting."""

    reason: str
    permanent: bool = False


@attrs.frozen(slots=True)
class Memory:
    """What earlier discoveries taught.

    `known` is the last master that sentinels named. Answers below `floor`, the highest
    config-epoch seen lately, come from a sentinel that slept through a failover; so do those
    that name, in that epoch, a master already `deposed`.
    """

    known: Address | None = None
    floor: int = -1
    deposed: Address | None = None

    def after(self, found: Found) -> Memory:
        """What is known once this is found, too: nothing new if no sentinel named it."""
        if found.degraded:
            return self
        deposed = found.deposed
        if deposed is None and found.config_epoch == self.floor:
            deposed = self.deposed
        return Memory(found.address, found.config_epoch, deposed)


Outcome = Found | Missing
Discovery = Generator[AskSentinels | AskRole, Any, Outcome]


def discover(name: str, direct: Address | None, memory: Memory) -> Discovery:
    """Find the master called `name`; without any sentinel, the one reached through `direct`."""
    replies = yield AskSentinels()
    answers = [reply for reply in replies if isinstance(reply, Answer)]
    silent = [reply for reply in replies if isinstance(reply, NoAnswer)]
    if answers:
        return (yield from _named_by(answers, memory))
    unknown = [each for each in silent if each.reason is Silence.UNKNOWN_MASTER]
    if unknown:
        hosts = ", ".join(str(each.sentinel) for each in unknown)
        return Missing(
            f"no sentinel monitors a master named {name!r} (asked {hosts}): "
            "check TELEGRAM_REDIS_MASTER_NAME",
            permanent=True,
        )
    reason = "no sentinel answers: " + "; ".join(map(str, silent))
    refused = [each.reason is Silence.REFUSED for each in silent]
    if any(refused):
        reason += "; check TELEGRAM_REDIS_SENTINEL_USER/PASSWORD and _SENTINEL_TLS/CA"
    candidates = [each for each in (memory.known, direct) if each is not None]
    if not candidates and all(refused):
        return Missing(reason, permanent=True)
    return (yield from _reached_through(candidates, reason))


def _named_by(answers: Sequence[Answer], memory: Memory) -> Discovery:
    newest = max(each.config_epoch for each in answers)
    believed = [each for each in answers if each.config_epoch == newest]
    master = Counter(each.master for each in believed).most_common(1)[0][0]
    hosts = ", ".join(str(each.sentinel) for each in answers)
    asleep = Missing(f"only sentinels that missed the last failover answer: {hosts}")
    if newest < memory.floor:
        return asleep
    # The failover's leader knows the successor up to a second before it tells the others, and
    # may itself be the last to call it the master.
    leader = next((each for each in believed if each.promoted is not None), None)
    if leader is not None and leader.promoted is not None:
        role = yield AskRole(leader.promoted)
        if isinstance(role, Role) and role.is_master:
            return Found(leader.promoted, role, newest, deposed=leader.master)
        return Missing(f"a failover to {leader.promoted} is under way")
    if newest == memory.floor and master == memory.deposed:
        return asleep
    if any(each.failing_over for each in believed):
        # Not even if it still answers: what it accepts from now on is lost.
        return Missing(f"a failover from {master} is under way")
    role = yield AskRole(master)
    if isinstance(role, NoRole):
        return Missing(f"master {master}: {role.detail}", role.permanent)
    if not role.is_master:
        return Missing(f"{master} is a replica by now; the sentinels name no other master yet")
    return Found(master, role, newest)


def _reached_through(candidates: Sequence[Address], reason: str) -> Discovery:
    """Ask the candidates for their roles, and the masters they name, until one is a master."""
    waiting, asked, problems = list(candidates), set[Address](), []
    permanent = False
    while waiting and len(asked) < _HOPS:
        address = waiting.pop(0)
        if address in asked:
            continue
        asked.add(address)
        role = yield AskRole(address)
        if isinstance(role, NoRole):
            problems.append(f"{address} {role.detail}")
            permanent = permanent or role.permanent
        elif role.is_master:
            return Found(address, role, degraded=reason)
        elif role.master is not None:
            problems.append(f"{address} is a replica of {role.master}")
            waiting.insert(0, role.master)
    if not problems:
        return Missing(f"{reason}; and no direct host is set (TELEGRAM_REDIS_HOST)")
    return Missing(f"{reason}; and directly: {'; '.join(problems)}", permanent)


def parse_answer(
    sentinel: Address, master: Any, replicas: Any, address_map: dict[Address, Address]
) -> Answer:
    """Read the RESP2 replies to SENTINEL MASTER and SENTINEL REPLICAS; ValueError if they are not.

    Addresses are translated by `address_map`.
    """
    facts = _facts(master)
    flags = facts.get("flags", "").split(",")
    promoted = None
    for replica in map(_facts, replicas):
        if "promoted" in replica.get("flags", "").split(","):
            promoted = _address(replica.get("ip"), replica.get("port"), address_map)
    return Answer(
        sentinel,
        _address(facts.get("ip"), facts.get("port"), address_map),
        int(facts.get("config-epoch", "0")),
        "failover_in_progress" in flags,
        promoted,
        int(facts.get("quorum", "0")),
    )


def parse_role(reply: Any, address_map: dict[Address, Address]) -> Role | NoRole:
    """Read the RESP2 reply to ROLE."""
    match reply:
        case [b"master", offset, replicas]:
            listed = [_address(host, port, address_map) for host, port, *_ in replicas]
            return Role(is_master=True, offset=int(offset), replicas=tuple(listed))
        case [b"slave", host, port, link, offset]:
            master = _address(host, port, address_map)
            return Role(False, int(offset), master, link == b"connected")
        case [b"sentinel", *_]:
            return NoRole("is a sentinel, not a Redis that keeps data", permanent=True)
    return NoRole("does not say whether it is a master")


def parse_history(reply: Any) -> History:
    """Read the RESP2 reply to INFO replication (Redis 4 and later tell of their histories)."""
    lines = reply.decode("utf-8", "replace").splitlines() if isinstance(reply, bytes) else []
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    return History(
        facts.get("master_replid", ""),
        facts.get("master_replid2", ""),
        int(facts.get("second_repl_offset", "0")) - 1,
    )


def complaints(replies: Iterable[Answer | NoAnswer]) -> dict[Address, str]:
    """The sentinels that somebody should mend, and what is wrong with each."""
    return {
        each.sentinel: f"{each}; skipped"
        for each in replies
        if isinstance(each, NoAnswer) and each.reason is not Silence.UNREACHABLE
    }


def as_of(samples: Iterable[tuple[float, int]], offset: int) -> float | None:
    """Since when a replica at `offset` may have missed writes, as a time of the samples.

    A sample (time, master's offset) was asked for at that time, so every write acknowledged
    before it lies below that offset. None if the replica is behind all samples.
    """
    return max((time for time, reached in samples if reached <= offset), default=None)


def lost_seconds(samples: Sequence[tuple[float, int]], known: History, found: History) -> float:
    """Of how many seconds a new master may lack what the last one, at last sampled, acknowledged.

    `known` is the last one's history, `found` the new one's. 0.0 if nothing is known of the last.
    """
    if not known.id or found.id == known.id:  # the same server is called by another name
        return 0.0
    since = as_of(samples, found.upto) if found.former == known.id else None
    return inf if since is None else samples[-1][0] - since


def _facts(reply: Any) -> dict[str, str]:
    if not isinstance(reply, list) or len(reply) % 2:
        raise ValueError("not a list of names and values")
    texts = [part.decode() if isinstance(part, bytes) else str(part) for part in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _address(host: Any, port: Any, address_map: dict[Address, Address]) -> Address:
    if not host or port is None:
        raise ValueError("names no address")
    found = Address(host.decode() if isinstance(host, bytes) else str(host), int(port))
    # Names of hosts have no case; those of a map are in lower case.
    return address_map.get(Address(found.host.lower(), found.port), found)
