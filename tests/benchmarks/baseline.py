"""The baseline: ratios of an earlier run, kept in the repository, and what got worse since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import attrs
import msgspec

from benchmarks.benchmark import Role
from benchmarks.figures import Result
from benchmarks.machine import About

_V = TypeVar("_V")
PATH = Path(__file__).with_name("baseline.json")
#: A ratio may grow by so much before it counts as worse.
TOLERANCE = 0.15
_KEPT = (Role.LIMIT, Role.ALTERNATIVE)


@attrs.frozen
class Baseline:
    """Ratios by benchmark and by the contender that ours was divided by.

    `seconds` is how long each benchmark took, with all setting up.
    """

    begun: datetime
    quick: bool
    load: float
    ratios: dict[str, dict[str, float]]
    seconds: dict[str, float] = attrs.field(factory=dict)


@attrs.frozen
class Worse:
    """A ratio that grew by more than the tolerance."""

    id: str
    to: str
    was: float
    now: float

    def __str__(self) -> str:
        grown = self.now / self.was - 1
        return f"{self.id}: {self.was:.2f} of {self.to} before, {self.now:.2f} now (+{grown:.0%})"


def baseline(about: About, results: Sequence[Result]) -> Baseline:
    """Take the ratios of a run, except those to floors and to what was only told."""
    ratios = {
        result.id: {r.to: round(r.value, 3) for r in result.ratios if r.role in _KEPT}
        for result in results
        if not result.failed
    }
    seconds = {each.id: round(each.seconds, 1) for each in results if each.seconds is not None}
    return Baseline(about.begun, about.quick, about.load_at_start, ratios, seconds)


def merged(old: Baseline | None, new: Baseline) -> Baseline:
    """The new baseline, with the old ratios of benchmarks that this run left out."""
    if old is None:
        return new
    seconds = {**old.seconds, **new.seconds}
    return attrs.evolve(new, ratios={**old.ratios, **new.ratios}, seconds=seconds)


def worse(old: Baseline, new: Baseline, tolerance: float = TOLERANCE) -> list[Worse]:
    """Name the ratios that got worse, those that both have."""
    return [
        Worse(row, to, was, now)
        for row, (before, after) in _both(old.ratios, new.ratios).items()
        for to, (was, now) in _both(before, after).items()
        if now > was * (1 + tolerance)
    ]


def unmeasured(old: Baseline, new: Baseline) -> list[str]:
    """Name the ratios of the baseline that a run of the same benchmarks did not give."""
    return [
        f"{row}: {to}"
        for row, (before, after) in _both(old.ratios, new.ratios).items()
        for to in before
        if to not in after
    ]


def load(path: Path) -> Baseline:
    """Read a baseline. Raises `msgspec.ValidationError`, `FileNotFoundError`."""
    return msgspec.json.decode(path.read_bytes(), type=Baseline)


def store(path: Path, kept: Baseline) -> None:
    """Write a baseline, for people to read the changes of."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(kept, order="sorted")) + b"\n")


def _both(one: Mapping[str, _V], other: Mapping[str, _V]) -> dict[str, tuple[_V, _V]]:
    return {key: (value, other[key]) for key, value in one.items() if key in other}
