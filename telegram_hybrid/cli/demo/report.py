"""What a run of the demo did, as a value and as a table."""

from __future__ import annotations

import attrs

from telegram_hybrid.cli.demo.latency import Percentiles


@attrs.frozen(slots=True, kw_only=True)
class Result:
    """The counters of one run; `stored` and `consumed_total` are the database's, of all runs.

    `latency_ms` is None for what could not be measured: `end_to_end` when nothing new arrived.
    """

    messages_read: int
    inserted: int
    edited: int
    duplicates: int
    skipped: int
    published: int
    consumed: int
    cache_hits: int
    cache_misses: int
    seconds: float
    latency_ms: dict[str, Percentiles | None]
    samples: dict[str, int]
    stored: int
    consumed_total: int
    channels: int
    skipped_reasons: dict[str, int]
    servers: dict[str, str | None]
    data: str | None


_COUNTS = {
    "messages_read": "messages read",
    "inserted": "inserted",
    "edited": "edited",
    "duplicates": "duplicates",
    "skipped": "skipped",
    "published": "events published",
    "consumed": "events consumed",
    "cache_hits": "cache hits",
    "cache_misses": "cache misses",
}
_LATENCIES = {
    "save": "save, one at a time",
    "get_hit": "get, from the cache",
    "get_miss": "get, from PostgreSQL",
    "latest": "latest 50",
    "seen": "seen, 50 ids",
    "end_to_end": "commit to handler",
}


def print_report(result: Result) -> None:
    """Print counts, latencies and what to do next, within 80 columns."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    table.add_column("")
    for heading in ("count", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for field, label in _COUNTS.items():
        table.add_row(label, f"{getattr(result, field):,}")
    table.add_row()
    for field, label in _LATENCIES.items():
        figures = result.latency_ms[field]
        cells = ["-"] * 3 if figures is None else [f"{ms:.2f}" for ms in attrs.astuple(figures)]
        table.add_row(label, f"{result.samples[field]:,}", *cells)
    console = Console(highlight=False)
    console.print(table)
    console.print()
    for reason, count in result.skipped_reasons.items():
        console.print(f"skipped {count:,}: {reason}", markup=False)
    for line in _closing(result):
        console.print(line, markup=False, soft_wrap=True)


def _closing(result: Result) -> list[str]:
    lines = [
        f"{result.stored:,} messages stored, {result.consumed_total:,} events consumed, "
        f"{result.seconds:.1f} s;",
        f"on PostgreSQL {result.servers['postgresql']} and {result.servers['redis']}, "
        f"{'kept in ' + result.data if result.data else 'gone with this run'}.",
    ]
    if result.data is None:
        return [
            *lines,
            "Next: your own posts, kept: python -m telegram_hybrid demo --data posts FILE...",
            "Run that twice: the second run finds duplicates only, and publishes nothing.",
        ]
    return [
        *lines,
        "Next: read them in Python:",
        f"    import telegram_hybrid as th; hybrid = th.embedded({result.data!r})",
    ]
