"""The command: `python -m benchmarks [NAME...]`, which `nox -s benchmarks` runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random, randrange
from time import monotonic

import attrs
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import baseline, keeping, rows
from benchmarks.benchmark import Benchmark
from benchmarks.figures import Result
from benchmarks.keeping import Run
from benchmarks.machine import About, about, load, quiet
from benchmarks.running import run, turns
from benchmarks.stand import Scale, Stand
from benchmarks.table import markdown, remarks, show

_INTERRUPTED = 130  # as shells say of what SIGINT ended


def main(arguments: list[str] | None = None) -> int:
    """Run, show, keep; return 1 if a row failed or got worse, which is no word about its aim."""
    parser = _parser()
    told = parser.parse_args(arguments)
    try:
        chosen = rows.chosen(told.name)
    except LookupError as error:
        parser.error(str(error.args[0]))
    if told.list:
        _list(chosen)
        return 0
    begun = about(seed=randrange(10**6) if told.seed is None else told.seed, quick=told.quick)
    if wrong := _impossible(told, begun):
        parser.error(wrong)
    done = _resumed(told) or Run(begun)
    left = keeping.unmeasured(chosen, done, named=bool(told.name))
    console = Console(width=None if sys.stdout.isatty() else 132)
    console.print(f"seed {begun.seed}, load {begun.load_at_start:.1f}, {len(left)} rows to do")
    interrupted = False
    try:
        for each in _measured(left, begun):
            done = done.having(each, [row.id for row in rows.ALL])
            if told.json:
                keeping.write(told.json, done)
    except KeyboardInterrupt:
        interrupted = True
    done = attrs.evolve(done, about=attrs.evolve(done.about, load_at_end=load()))
    show(console, done.about, done.results)
    _keep(told, done, whole=not interrupted)
    if interrupted:
        console.print("interrupted: these rows were measured, the others not", style="red")
        return _INTERRUPTED
    worse = _compare(told.compare, done, console) if told.compare else 0
    return int(bool(worse or any(each.failed for each in done.results)))


def _impossible(told: argparse.Namespace, begun: About) -> str | None:
    """Why what was asked for cannot be done, if so."""
    if told.store and not quiet():
        return f"load {load():.1f}: a baseline is made on a machine that rests"
    if told.compare and not told.compare.exists():
        return f"there is no baseline {told.compare}: --store makes one"
    if told.resume and not told.json:
        return "--resume needs --json FILE: that is what it goes on with"
    before = _resumed(told)
    if before and (changed := keeping.changed(before.about, begun)):
        return f"{told.json} was measured with another {', '.join(changed)}"
    return None


def _resumed(told: argparse.Namespace) -> Run | None:
    """The run to go on with."""
    return keeping.read(told.json) if told.resume and told.json.exists() else None


def _measured(chosen: list[Benchmark], begun: About) -> Iterator[Result]:
    """Each row as soon as it is measured."""
    if not chosen:
        return
    random = Random(begun.seed)
    columns = (TextColumn("{task.description:20}"), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
    with bar, Stand(Scale.QUICK if begun.quick else Scale.FULL) as stand:
        for number, each in enumerate(chosen, start=1):
            plan = each.quick if begun.quick else each.plan
            task = bar.add_task(f"{number}/{len(chosen)} {each.id}", total=turns(each, plan))
            at, since, before = datetime.now(UTC).replace(microsecond=0), monotonic(), load()
            found = run(each, stand, plan, random, lambda task=task: bar.advance(task))
            found = attrs.evolve(found, began=at, seconds=monotonic() - since, load=before)
            if not bar.console.is_terminal:
                told = f"{number} of {len(chosen)}: {each.id}, {found.seconds:.0f} s"
                bar.console.print(told, markup=False)
            for line in remarks(found):
                bar.console.print(f"{each.id}: {line}", markup=False)
            yield found


def _list(chosen: list[Benchmark]) -> None:
    """Name the rows, and how long each took when the baseline was made."""
    seconds = baseline.load(baseline.PATH).seconds if baseline.PATH.exists() else {}
    for each in chosen:
        took = f"{seconds[each.id]:.0f} s" if each.id in seconds else ""
        print(f"{each.id:26}{took:>7}  {each.what}")


def _keep(told: argparse.Namespace, done: Run, *, whole: bool) -> None:
    if told.json:
        keeping.write(told.json, done)
    if told.docs:
        from benchmarks.plots import plot  # matplotlib only for who asks for it

        told.docs.mkdir(parents=True, exist_ok=True)
        (told.docs / "results.md").write_text(markdown(done.about, done.results))
        for each in done.results:
            plot(each, told.docs / f"{each.id}.svg")
    if told.store and whole:
        old = baseline.load(told.store) if told.store.exists() else None
        new = baseline.baseline(done.about, done.results)
        baseline.store(told.store, baseline.merged(old, new))


def _compare(path: Path, done: Run, console: Console) -> int:
    old, new = baseline.load(path), baseline.baseline(done.about, done.results)
    found = baseline.worse(old, new)
    for each in found:
        console.print(f"worse: {each}", style="red", markup=False)
    for each in baseline.unmeasured(old, new):
        console.print(f"in the baseline, not measured now: {each}", style="red", markup=False)
    if not found:
        console.print(f"no ratio is more than {baseline.TOLERANCE:.0%} worse than in {path}")
    return len(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks", description="Us, the limit, the alternatives.")
    parser.add_argument("name", nargs="*", help="which benchmarks, or their names' beginnings; all")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for a first look")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and end")
    parser.add_argument("--seed", type=int, help="of the order in which contenders take turns")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write everything measured, row by row"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep the rows that FILE has, and measure the others, or those that are named",
    )
    parser.add_argument("--docs", type=Path, metavar="DIR", help="write results.md and SVG plots")
    for name, does in (("compare", "flag ratios worse than in"), ("store", "keep the ratios in")):
        parser.add_argument(
            f"--{name}",
            type=Path,
            metavar="FILE",
            nargs="?",
            const=baseline.PATH,
            help=f"{does} FILE (the repository's baseline)",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
