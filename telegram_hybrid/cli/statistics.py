"""`statistics`: how many messages a channel had, what became of them, and how fast."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from telegram_hybrid.cli.errors import OK

if TYPE_CHECKING:
    from telegram_hybrid.model import Statistics


class By(StrEnum):
    """How long the stretches are that are counted."""

    HOUR = "hour"
    DAY = "day"


def command(
    channel: Annotated[
        int | None,
        typer.Argument(metavar="CHANNEL", help="Its marked chat id; all channels if left out."),
    ] = None,
    days: Annotated[
        float, typer.Option(help="Look back so many days, widened to whole ones (UTC).", min=0.001)
    ] = 7.0,
    by: Annotated[By, typer.Option(help="A line for each hour or for each day.")] = By.DAY,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Count messages by the time at which they were sent, and what became of them.

    Latency is from storing a message until it was marked as published: exact at both ends, and
    within 5% for p50, p95 and p99. "ok" is the share of published and reprocessed messages in all
    that came to an end. --json has more columns.

    Example:

        python -m telegram_hybrid statistics -1001649127710 --days 30
    """
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.servers import store

    since = datetime.now(UTC) - timedelta(days=days)
    if by is By.DAY:
        since = since.replace(hour=0, minute=0)
    with store() as hybrid:
        step = hybrid.statistics.hourly if by is By.HOUR else hybrid.statistics.daily
        series = step(channel, since=since)
        summary = hybrid.statistics.summary(channel, since=since)
    if json:
        print_json({"summary": summary.flat(), "rows": [row.flat() for row in series]})
    else:
        _print_table(series.rows, summary, by)
    return OK


def _print_table(rows: list[Statistics], summary: Statistics, by: By) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, collapse_padding=True, show_footer=True)
    channels = summary.channel_id is None
    name = f"{by.value} (UTC)"
    cells = [_cells(row) for row in rows]
    footer = _cells(summary)
    if channels:
        table.add_column("channel", "", justify="right", no_wrap=True)
    table.add_column(name, "together", no_wrap=True)
    for number, title in enumerate(("messages", "published", "failed", "ok", "p50", "p99")):
        table.add_column(title, footer[number], justify="right", no_wrap=True)
    for row, figures in zip(rows, cells, strict=True):
        first = [str(row.channel_id)] if channels else []
        table.add_row(
            *first, f"{row.since:%Y-%m-%d}{f'{row.since: %H}h' * (by is By.HOUR)}", *figures
        )
    Console().print(table)


def _cells(row: Statistics) -> list[str]:
    rate, latency, found = row.success_rate, row.latency, row.flat()
    counts = (row.messages, found["published"], found["failed"])
    return [
        *(f"{count:,}" for count in counts),
        "-" if rate is None else f"{rate:.1%}",
        *("-" if latency is None else _seconds(getattr(latency, p)) for p in ("p50", "p99")),
    ]


def _seconds(value: float) -> str:
    """A duration for people: 12 ms, 3.4 s, 5.0 min, 2.1 h."""
    if value < 1:
        return f"{value * 1000:.3g} ms"
    for unit, size in (("s", 60.0), ("min", 60.0)):
        if value < size:
            return f"{value:.1f} {unit}"
        value /= size
    return f"{value:,.1f} h"
