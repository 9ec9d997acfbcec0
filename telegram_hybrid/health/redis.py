"""Redis' and the sentinels' health: the master asked for itself, and each sentinel whether it is
there. Redis is optional (P7): whatever it lacks degrades, and nothing of it is ever DOWN."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import attrs

from telegram_hybrid.connect.redis import (
    Address,
    Answer,
    Target,
    View,
    ask_sentinels,
    directory_of,
    open_redis,
    parse,
)
from telegram_hybrid.errors import HybridError
from telegram_hybrid.health.values import Node, ServiceHealth, State

#: Seconds without a word from a replica after which it does not count (Redis' own default for
#: min-replicas-max-lag). A replica that is well reports every second.
LAG = 10.0
#: Seconds for which failing calls are repeated.
_PATIENCE = 1.0


def ask_redis(url: str | None, live: View | None = None) -> ServiceHealth:
    """Ask the server behind `url`, or the master that its sentinels name.

    `live` is what a running client knows: by which way it goes is what counts.
    """
    if url is None:
        return ServiceHealth(name="redis", state=State.NOT_CONFIGURED)
    started = perf_counter()
    try:
        target = parse(url)
        with open_redis(url, deadline=_PATIENCE) as client:
            said = client.info("replication")
            seconds = perf_counter() - started
            version = product(client.info("server"))
            directory = directory_of(client)
            view = directory.view() if directory is not None else None
    except HybridError as error:
        why = f"reads come from PostgreSQL: {error}"
        return ServiceHealth(name="redis", state=State.DEGRADED, why=why)
    service = ServiceHealth(
        name="redis",
        state=State.OK,
        reachable=True,
        seconds=round(seconds, 6),
        address=_place(target, view),
        version=version,
        role="master" if said["role"] == "master" else "replica",
        via="direct" if view is None else view.via,
        lag_seconds=_own_lag(said),
        nodes=_replicas(said, target),
    )
    return _judged(service, said, view, live)


def ask_sentinels_of(url: str | None) -> ServiceHealth:
    """Ask every sentinel of `url`; fewer than a failover needs is a degradation."""
    try:
        target = parse(url) if url is not None else None
    except HybridError as error:
        return ServiceHealth(name="sentinel", state=State.DEGRADED, why=str(error))
    if target is None or not target.sentinels:
        return ServiceHealth(name="sentinel", state=State.NOT_CONFIGURED)
    started = perf_counter()
    replies = ask_sentinels(target, _PATIENCE)
    answers = [each for each in replies if isinstance(each, Answer)]
    nodes = tuple(
        Node(
            address=str(each.sentinel),
            reachable=isinstance(each, Answer),
            why="" if isinstance(each, Answer) else str(each).removeprefix(f"{each.sentinel} "),
        )
        for each in replies
    )
    # A quorum agrees that the master is down, a majority elects who replaces it.
    needed = max([len(replies) // 2 + 1, *(each.quorum for each in answers)])
    why = ""
    if len(answers) < needed:
        lost = "; ".join(f"{each.address} {each.why}" for each in nodes if not each.reachable)
        why = f"{len(answers)} of {len(nodes)} answer, a failover needs {needed}: {lost}"
    return ServiceHealth(
        name="sentinel",
        state=State.DEGRADED if why else State.OK,
        reachable=bool(answers),
        why=why,
        seconds=round(perf_counter() - started, 6) if answers else None,
        nodes=nodes,
    )


def product(info: dict[str, Any]) -> str:
    """Name and version in a reply to INFO."""
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', '?')}"


def _judged(
    service: ServiceHealth, said: dict[str, Any], view: View | None, live: View | None
) -> ServiceHealth:
    why = []
    if service.role == "replica":
        why.append("a replica, which takes no writes: nothing new is cached; name its master")
    if live is not None and (live.degraded or live.problem):
        service = attrs.evolve(service, via=live.via if live.degraded else None)
        why.append(f"this process goes by what it knows: {live.degraded or live.problem}")
    elif view is not None and view.degraded:
        why.append(view.degraded)
    if view is not None and not any(each.reachable for each in service.nodes):
        why.append("no replica keeps up with it: if it is lost, so is the cache")
    if not why:
        return service
    return attrs.evolve(service, state=State.DEGRADED, why="; ".join(why))


def _place(target: Target, view: View | None) -> str:
    if view is not None:
        return str(view.master)
    if "path" in target.options:
        return str(target.options["path"])
    host = target.options.get("host", "localhost")
    return str(Address(host, target.options.get("port", 6379)))


def _replicas(said: dict[str, Any], target: Target) -> tuple[Node, ...]:
    """What a master says of its replicas, under the addresses by which we reach them."""
    found = []
    for number in range(said.get("connected_slaves", 0)):
        facts = said.get(f"slave{number}")
        if isinstance(facts, dict):
            address = Address(str(facts["ip"]), int(facts["port"]))
            lag, state = float(facts["lag"]), str(facts["state"])
            told = "" if state == "online" else f"its link is in state {state}"
            if not told and lag > LAG:
                told = f"has said nothing for {lag:.0f} s"
            node = Node(
                address=str(target.address_map.get(address, address)),
                reachable=not told,
                lag_seconds=lag,
                lag_bytes=max(0, said["master_repl_offset"] - int(facts["offset"])),
                why=told,
            )
            found.append(node)
    return tuple(found)


def _own_lag(said: dict[str, Any]) -> float | None:
    """Seconds since a replica heard of its master; None for a master, or without a link."""
    heard = said.get("master_last_io_seconds_ago", -1)
    return float(heard) if heard >= 0 else None
