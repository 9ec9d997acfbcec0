"""`health`: ask every configured server how it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from telegram_hybrid.cli.errors import OK

if TYPE_CHECKING:
    from rich.text import Text

    from telegram_hybrid.health import Health, ServiceHealth

DEGRADED = 1
DOWN = 2

_STYLES = {"ok": "green", "degraded": "yellow", "down": "bold red", "not configured": "dim"}


def command(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if degraded.")] = False,
) -> int:
    """Ask PostgreSQL, PgBouncer, Redis, the sentinels and the broker how they are, all at once.

    Takes 4 seconds at most: who has not answered by then is mute. What is not configured is
    not asked.

    Exit codes:

    - 0: everything works, though perhaps degraded: not the way it was set up
    - 1: degraded, with --strict only: PgBouncer, Redis, its replicas or most sentinels are lost
    - 2: down: PostgreSQL, its schema or the broker does not do its work; or the settings are wrong

    Example:

        python -m telegram_hybrid health --strict
    """
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.health import State, check
    from telegram_hybrid.settings import Settings

    found = check(Settings.from_env())
    if json:
        print_json({"state": found.state, "services": found.services, "outbox": found.outbox})
    else:
        _print_table(found)
    if found.state is State.DOWN:
        return DOWN
    return DEGRADED if strict and found.state is State.DEGRADED else OK


def _print_table(found: Health) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("service", no_wrap=True)
    table.add_column("state")
    table.add_column("ms", justify="right")
    table.add_column("facts", overflow="fold")
    for each in found.services:
        took = f"{each.seconds * 1000:.1f}" if each.seconds is not None else "-"
        table.add_row(each.name, Text(each.state, _STYLES[each.state]), took, _facts(each))
    outbox = found.outbox
    if outbox is not None:
        waits = f"{outbox.events:,} events wait"
        if outbox.oldest_seconds is not None:
            waits += f", the oldest for {outbox.oldest_seconds:,.0f} s"
        table.add_row("outbox", "", "", Text(f"{waits}\n{outbox.dead_letters:,} dead letters"))
    Console().print(table)


def _facts(service: ServiceHealth) -> Text:
    """What there is to know of a service, one thing a line; its trouble first."""
    from rich.text import Text

    way = f"via {service.via}" if service.via else None
    first = [service.version, service.role, way, service.address]
    lines = [", ".join(filter(None, first))]
    if service.lag_seconds is not None:
        lines.append(f"{service.lag_seconds:.1f} s behind")
    for node in service.nodes:
        lag = "" if node.lag_seconds is None else f", {node.lag_seconds:.1f} s"
        lag += "" if node.lag_bytes is None else f" and {node.lag_bytes:,} bytes behind"
        kind = "sentinel" if service.name == "sentinel" else "replica"
        lines.append(f"{kind} {node.address}{lag}{f': {node.why}' if node.why else ''}")
    lines += [
        f"queue {each.name}: {each.ready:,} ready, {each.consumers:,} consumers"
        for each in service.queues
    ]
    text = Text(service.why, _STYLES[service.state])
    for line in filter(None, lines):
        text.append(f"\n{line}" if text else line, "none")
    return text
