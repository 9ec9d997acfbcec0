"""The table for people: on the terminal, and as Markdown for the docs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figures, Ratio, Result
from benchmarks.machine import QUIET, About

HEAD = ("contender", "role", "median", "p95", "p99", "IQR", "CPU", "ours / it", "by CPU", "aim")
_MARK = {None: "", True: "met", False: "MISSED"}


def show(console: Console, about: About, results: Iterable[Result]) -> None:
    """Print everything that was found."""
    for result in results:
        table = Table(title=f"{result.id}: {result.what}", title_justify="left", title_style="bold")
        for number, name in enumerate(HEAD):
            table.add_column(name, justify="left" if number < 2 else "right", no_wrap=number > 0)
        for row in rows(result):
            style = "red" if row[-1].endswith(_MARK[False]) else None
            table.add_row(*row, style=style)
        console.print(table)
        for line in remarks(result):
            console.print(f"  {line}", style="red", markup=False)
    for line in conditions(about):
        console.print(line, markup=False)


def rows(result: Result) -> Iterator[tuple[str, ...]]:
    """The lines of one benchmark, in the order of HEAD; ours first."""
    ratios = {each.to: each for each in result.ratios}
    for each in result.figures:
        yield (*_figures(each, result.unit), *_ratio(ratios.get(each.name), result))


def remarks(result: Result) -> list[str]:
    """What a reader must not overlook: failures, and contenders that were not there."""
    found = [f"failed: {result.failed}"] if result.failed else []
    for name, lacks in result.missing.items():
        found.append(f"missing: {name} (not installed: {', '.join(lacks)})")
    return found


def conditions(about: About) -> list[str]:
    """Machine, versions, load and seed."""
    loads = f"load {about.load_at_start:.1f} at the start"
    if about.load_at_end is not None:
        loads += f", {about.load_at_end:.1f} at the end"
    if not about.quiet:
        loads += f" (busy: above {QUIET}, trust the CPU ratios more than the times)"
    return [
        f"{about.begun:%Y-%m-%d %H:%M} UTC, seed {about.seed}{', quick' if about.quick else ''}",
        f"{about.cores} x {about.cpu}, {about.system}, Python {about.python}",
        *about.versions,
        loads,
    ]


def markdown(about: About, results: Sequence[Result]) -> str:
    """Everything as Markdown."""
    lines = [*(f"- {line}" for line in conditions(about)), ""]
    for result in results:
        lines += [f"### {result.id}", "", f"{result.what[0].upper()}{result.what[1:]}.", ""]
        lines += [f"| {' | '.join(HEAD)} |", "|---|---" + "|--:" * (len(HEAD) - 2) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows(result)]
        lines += ["", *(f"**{line}**\n" for line in remarks(result))]
        versions = {k: v for each in result.figures for k, v in each.versions.items()}
        if versions:
            lines += [", ".join(f"{name} {found}" for name, found in sorted(versions.items())), ""]
        if result.figures:
            lines += [f"![{result.id}]({result.id}.svg)", ""]
    return "\n".join(lines)


def amount(value: float, unit: str) -> str:
    """Write a value with three digits and its unit, from nanoseconds or bytes up; shares in %."""
    if unit == "%":
        return f"{100 * value:.3g} %"
    scales = (
        ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
        if unit == "s"
        else ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
    )
    scale, name = next((each for each in scales if value >= each[0]), scales[-1])
    return f"{value / scale:.3g} {name}" if value < 999.5 * scale else f"{value / scale:.0f} {name}"


def _figures(each: Figures, unit: str) -> tuple[str, ...]:
    values = (each.median, each.p95, each.p99, each.spread)
    cpu = amount(each.cpu, "s") if each.cpu else ""
    return (each.name, each.role, *(amount(value, unit) for value in values), cpu)


def _most(result: Result) -> str:
    """The aims for our own figures, and whether they were met."""
    ours, unit = result.ours, result.unit
    aims = (
        ("", ours.median, result.most),
        ("p95 ", ours.p95, result.most_p95),
        ("p99 ", ours.p99, result.most_p99),
    )
    return "; ".join(
        f"{name}≤ {amount(aim, unit)} {_MARK[value <= aim]}"
        for name, value, aim in aims
        if aim is not None
    )


def _ratio(ratio: Ratio | None, result: Result) -> tuple[str, ...]:
    if ratio is None:
        return ("", "", _most(result))
    aim = "" if ratio.aim is None else f"≤ {ratio.aim:g} {_MARK[ratio.met]}"
    cpu = "" if ratio.cpu is None else f"{ratio.cpu:.2f}"
    return (f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})", cpu, aim)
