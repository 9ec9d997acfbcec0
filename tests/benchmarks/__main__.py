"""The command: `python -m benchmarks [NAME...]`, which `nox -s benchmarks` runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from random import Random, randrange

import attrs
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import baseline, rows
from benchmarks.benchmark import Benchmark
from benchmarks.figures import Result
from benchmarks.machine import About, about, load, quiet
from benchmarks.running import run, turns
from benchmarks.stand import Scale, Stand
from benchmarks.table import markdown, remarks, show


def main(arguments: list[str] | None = None) -> int:
    """Run, show, keep; return 1 if a row failed or got worse, which is no word about its aim."""
    told = _parser().parse_args(arguments)
    try:
        chosen = rows.chosen(told.name)
    except LookupError as error:
        _parser().error(str(error.args[0]))
    if told.store and not quiet():
        _parser().error(f"load {load():.1f}: a baseline is made on a machine that rests")
    if told.compare and not told.compare.exists():
        _parser().error(f"there is no baseline {told.compare}: --store makes one")
    if told.list:
        print("\n".join(f"{each.id:22}{each.what}" for each in chosen))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 132)
    begun = about(seed=randrange(10**6) if told.seed is None else told.seed, quick=told.quick)
    console.print(f"seed {begun.seed}, load {begun.load_at_start:.1f}")
    results = _run(chosen, begun)
    ended = attrs.evolve(begun, load_at_end=load())
    show(console, ended, results)
    _keep(told, ended, results)
    worse = _compare(told.compare, ended, results, console) if told.compare else 0
    return int(bool(worse or any(each.failed for each in results)))


def _run(chosen: list[Benchmark], begun: About) -> list[Result]:
    random = Random(begun.seed)
    results = []
    columns = (TextColumn("{task.description:20}"), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
    with bar, Stand(Scale.QUICK if begun.quick else Scale.FULL) as stand:
        for each in chosen:
            plan = each.quick if begun.quick else each.plan
            task = bar.add_task(each.id, total=turns(each, plan))
            results.append(run(each, stand, plan, random, lambda task=task: bar.advance(task)))
            for line in remarks(results[-1]):
                bar.console.print(f"{each.id}: {line}", markup=False)
    return results


def _keep(told: argparse.Namespace, ended: About, results: list[Result]) -> None:
    if told.json:
        data = msgspec.json.encode({"about": ended, "results": results})
        told.json.write_bytes(msgspec.json.format(data) + b"\n")
    if told.docs:
        from benchmarks.plots import plot  # matplotlib only for who asks for it

        told.docs.mkdir(parents=True, exist_ok=True)
        (told.docs / "results.md").write_text(markdown(ended, results))
        for each in results:
            plot(each, told.docs / f"{each.id}.svg")
    if told.store:
        old = baseline.load(told.store) if told.store.exists() else None
        baseline.store(told.store, baseline.merged(old, baseline.baseline(ended, results)))


def _compare(path: Path, ended: About, results: list[Result], console: Console) -> int:
    old, new = baseline.load(path), baseline.baseline(ended, results)
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
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
