"""Keeping: a run in a file, written after each row, so that what is measured is not lost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs
import msgspec

from benchmarks.benchmark import Benchmark
from benchmarks.figures import Result
from benchmarks.machine import About

#: What must not have changed between the rows of one run.
_SAME = ("quick", "long", "cpu", "cores", "system", "python", "versions")


@attrs.frozen
class Run:
    """Where and when, and every row that was measured so far."""

    about: About
    results: list[Result] = attrs.field(factory=list)

    def having(self, new: Result, order: Sequence[str]) -> Run:
        """The run with that row, in place of an earlier one, in the order of all rows."""
        found = {each.id: each for each in (*self.results, new)}
        places = {name: place for place, name in enumerate(order)}
        ordered = sorted(found.values(), key=lambda each: places.get(each.id, len(places)))
        return attrs.evolve(self, results=ordered)


def changed(old: About, new: About) -> list[str]:
    """Name what differs between machines or runs whose rows must not stand in one table."""
    return [name for name in _SAME if getattr(old, name) != getattr(new, name)]


def unmeasured(chosen: Iterable[Benchmark], run: Run, *, named: bool) -> list[Benchmark]:
    """What is left to do: whatever was named, else rows that are not there or that failed."""
    done = {each.id for each in run.results if not each.failed}
    return [each for each in chosen if named or each.id not in done]


def write(path: Path, run: Run) -> None:
    """Replace the file as a whole: who is killed meanwhile leaves the one before."""
    data = msgspec.json.format(msgspec.json.encode(run)) + b"\n"
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(data)
    new.replace(path)


def read(path: Path) -> Run:
    """Read a run. Raises `msgspec.ValidationError`, `FileNotFoundError`."""
    return msgspec.json.decode(path.read_bytes(), type=Run)
