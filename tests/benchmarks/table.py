"""The table for people: on the terminal, and as Markdown for the docs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks import overview
from benchmarks.figures import Figures, Ratio, Result
from benchmarks.machine import QUIET, About
from benchmarks.overview import amount, said
from benchmarks.verdicts import Verdict, judged

_PREFACE = (
    "Written by `nox -s benchmarks -- --docs DIR`; [how to read it](../benchmarks.md). Ratios are",
    "ours divided by theirs: below 1 we are faster. The times are this machine's; run it on yours.",
)
HEAD = ("contender", "role", "median", "p95", "p99", "IQR", "CPU", "ours / it", "by CPU", "aim")
_STYLES = {Verdict.MISSED: "red", Verdict.OUT_OF_REACH: "yellow"}


def show(console: Console, about: About, results: Sequence[Result]) -> None:
    """Print everything that was found."""
    for result in results:
        table = Table(title=f"{result.id}: {result.what}", title_justify="left", title_style="bold")
        for number, name in enumerate(HEAD):
            table.add_column(name, justify="left" if number < 2 else "right", no_wrap=number > 0)
        for row in rows(result):
            style = next((_STYLES[each] for each in _STYLES if each in row[-1]), None)
            table.add_row(*row, style=style)
        console.print(table)
        for line in notes(result):
            console.print(f"  {line}", markup=False)
        for line in remarks(result):
            console.print(f"  {line}", style="red", markup=False)
    table = Table(*overview.HEAD, title=overview.count(results), title_justify="left")
    for row in overview.lines(results):
        style = next((_STYLES[each] for each in _STYLES if each in row[-1]), None)
        table.add_row(*row, style=style)
    console.print(table)
    for line in conditions(about):
        console.print(line, markup=False)


def rows(result: Result) -> Iterator[tuple[str, ...]]:
    """The lines of one benchmark, in the order of HEAD; ours first."""
    ratios = {each.to: each for each in result.ratios}
    aims: dict[str, list[str]] = {}
    for aim in judged(result):
        aims.setdefault(aim.to or result.ours.name, []).append(said(aim, result.unit))
    for each in result.figures:
        told = "; ".join(aims.get(each.name, []))
        yield (*_figures(each, result.unit), *_ratio(ratios.get(each.name)), told)


def remarks(result: Result) -> list[str]:
    """What a reader must not overlook: failures, and contenders that were not there."""
    found = [f"failed: {result.failed}"] if result.failed else []
    for name, lacks in result.missing.items():
        found.append(f"missing: {name} (not installed: {', '.join(lacks)})")
    return found


def notes(result: Result) -> list[str]:
    """Why nobody comes below the row's floor, and when and in how long it was measured."""
    found = []
    if bound := result.bound:
        more = f", beyond {bound.beyond}" if bound.beyond else ""
        found.append(f"floor: {bound.name}{more}: {bound.why}")
    if result.began is not None and result.seconds is not None and result.load is not None:
        begun = f"{result.began:%Y-%m-%d %H:%M} UTC"
        found.append(f"{begun}, {result.seconds:.0f} s in all, load {result.load:.1f}")
    return found


def conditions(about: About) -> list[str]:
    """Machine, versions, load and seed."""
    loads = f"load {about.load_at_start:.1f} at the start"
    if about.load_at_end is not None:
        loads += f", {about.load_at_end:.1f} at the end"
    if not about.quiet:
        loads += f" (busy: above {QUIET}, trust the CPU ratios more than the times)"
    kind = "".join(f", {name}" for name in ("quick", "long") if getattr(about, name))
    return [
        f"{about.begun:%Y-%m-%d %H:%M} UTC, seed {about.seed}{kind}",
        f"{about.cores} x {about.cpu}, {about.system}, Python {about.python}",
        *about.versions,
        loads,
    ]


def markdown(about: About, results: Sequence[Result]) -> str:
    """Everything as Markdown."""
    lines = ["# What the benchmarks found", "", *_PREFACE, ""]
    lines += [*(f"- {line}" for line in conditions(about)), "", f"{overview.count(results)}.", ""]
    lines += [f"| {' | '.join(overview.HEAD)} |", "|---|--:|---|---|---|"]
    for name, *row in overview.lines(results):
        lines.append(f"| {' | '.join((f'[{name}](#{name})', *row))} |")
    lines.append("")
    for result in results:
        lines += [f"## {result.id}", "", f"{result.what[0].upper()}{result.what[1:]}.", ""]
        lines += [f"| {' | '.join(HEAD)} |", "|---|---" + "|--:" * (len(HEAD) - 2) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows(result)]
        lines += ["", *(f"**{line}**\n" for line in remarks(result))]
        lines += [f"{line[0].upper()}{line[1:]}.\n" for line in notes(result)]
        versions = {k: v for each in result.figures for k, v in each.versions.items()}
        if versions:
            lines += [", ".join(f"{name} {found}" for name, found in sorted(versions.items())), ""]
        if result.figures:
            lines += [f"![{result.id}]({result.id}.svg)", ""]
    return "\n".join(lines)


def _figures(each: Figures, unit: str) -> tuple[str, ...]:
    values = (each.median, each.p95, each.p99, each.spread)
    cpu = amount(each.cpu, "s") if each.cpu else ""
    return (each.name, each.role, *(amount(value, unit) for value in values), cpu)


def _ratio(ratio: Ratio | None) -> tuple[str, ...]:
    if ratio is None:
        return ("", "")
    cpu = "" if ratio.cpu is None else f"{ratio.cpu:.2f}"
    return (f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})", cpu)
