"""`health`: ask every configured server how it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from telegram_hybrid.cli.errors import FAILED, OK

if TYPE_CHECKING:
    from telegram_hybrid.health import Health


def command(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Ask PostgreSQL, its schema, the outbox, Redis and the broker how they are.

    Exits with 1 if one of them failed. What is not configured is not asked.

    Example:

        python -m telegram_hybrid health --json
    """
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.health import check
    from telegram_hybrid.settings import Settings

    found = check(Settings.from_env())
    if json:
        print_json({"ok": found.ok, **_fields(found)})
    else:
        _print_table(found)
    return OK if found.ok else FAILED


def _fields(found: Health) -> dict[str, object]:
    import attrs

    return attrs.asdict(found)


def _print_table(found: Health) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("part")
    table.add_column("state")
    table.add_column("ms", justify="right")
    table.add_column("version")
    table.add_column("detail", overflow="fold")
    for ping in found.pings:
        state = Text("ok", "green") if ping.ok else Text("FAILED", "bold red")
        version, detail = Text(ping.version or "-"), Text(ping.detail)
        table.add_row(ping.name, state, f"{ping.seconds * 1000:.1f}", version, detail)
    Console().print(table)
