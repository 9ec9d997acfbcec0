"""The rows of the table, one module for each kind of work."""

from __future__ import annotations

from benchmarks.benchmark import Benchmark
from benchmarks.rows import (
    cached,
    consumed,
    counted,
    grown,
    latency,
    missed,
    partitioned,
    planned,
    processes,
    relayed,
    saved,
    searched,
    taxed,
)

ALL: tuple[Benchmark, ...] = (
    *cached.ROWS,
    *missed.ROWS,
    *partitioned.ROWS,
    *saved.ROWS,
    *counted.ROWS,
    *searched.ROWS,
    *taxed.ROWS,
    *relayed.ROWS,
    *consumed.ROWS,
    *latency.ROWS,
    *planned.ROWS,
    *grown.ROWS,
    *processes.ROWS,
)


def chosen(names: list[str]) -> list[Benchmark]:
    """The rows of these names; a name that is none stands for all that begin with it; all for [].

    Raises `LookupError` for a name that fits none.
    """
    for name in names:
        if not any(_fits(each, name) for each in ALL):
            known = ", ".join(each.id for each in ALL)
            raise LookupError(f"no benchmark is called {name!r}; there are {known}")
    return [each for each in ALL if not names or any(_fits(each, name) for name in names)]


def _fits(row: Benchmark, name: str) -> bool:
    if name in {each.id for each in ALL}:
        return row.id == name
    return row.id.startswith(f"{name}-")
