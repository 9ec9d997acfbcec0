"""Verdicts: each aim of a row, what was reached, and what its bound reached beside it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import attrs

from benchmarks.figures import Figures, Result


class Verdict(StrEnum):
    """What became of an aim."""

    MET = "met"
    MISSED = "MISSED"
    #: Missed by ours, and by the contender below which nobody can come.
    OUT_OF_REACH = "out of reach"


@attrs.frozen(kw_only=True)
class Judged:
    """An aim: at most `aim`, a ratio to the contender `to`, or without it the figure `of` ours.

    `bound` is what the row's bound reached, None where that says nothing.
    """

    to: str | None
    of: str
    value: float
    aim: float
    bound: float | None

    @property
    def verdict(self) -> Verdict:
        """Whether it was met, and if not, whether it could have been."""
        if self.value <= self.aim:
            return Verdict.MET
        if self.bound is not None and self.bound > self.aim:
            return Verdict.OUT_OF_REACH
        return Verdict.MISSED


def judged(result: Result) -> Iterator[Judged]:
    """Every aim of the row: of our own figures, then of the ratios, in the table's order."""
    if not result.figures:
        return
    ours, least = result.ours, result.least
    figures = {each.name: each for each in result.figures}
    for of, aim in (("median", result.most), ("p95", result.most_p95), ("p99", result.most_p99)):
        if aim is not None:
            bound = None if least is None else getattr(least, of)
            yield Judged(to=None, of=of, value=getattr(ours, of), aim=aim, bound=bound)
    for each in result.ratios:
        if each.aim is None:
            continue
        bound = _reached(result, figures, each.to)
        yield Judged(to=each.to, of="median", value=each.value, aim=each.aim, bound=bound)


def _reached(result: Result, figures: dict[str, Figures], to: str) -> float | None:
    """The bound of a ratio to that contender; a ratio to itself says nothing."""
    bound = result.bound
    if bound is None or to in bound.names or not bound.names <= figures.keys():
        return None
    least, base = figures[bound.name].median, figures[to].median
    if bound.beyond is None:
        return least / base
    return (base + least - figures[bound.beyond].median) / base
