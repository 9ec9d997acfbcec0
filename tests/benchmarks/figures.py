"""Figures: from what was measured to medians, spreads and ratios with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from random import Random
from statistics import median

import attrs

from benchmarks.benchmark import Aim, Benchmark, Bound, Contender, Role
from benchmarks.measuring import Round

_RESAMPLES = 400


@attrs.frozen(kw_only=True)
class Figures:
    """One contender's values, in the benchmark's unit. `spread` is the interquartile range.

    `cpu` is the client's CPU seconds for one unit of work, the median of the rounds. `medians`
    are those of the rounds, in order: a drift of the machine shows there.
    """

    name: str
    role: Role
    median: float
    p95: float
    p99: float
    spread: float
    cpu: float
    count: int
    medians: list[float]
    versions: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Ratio:
    """Ours divided by another's, of the medians; `low` to `high` holds it with 95%.

    `cpu` is the ratio of the client's CPU times, None where there are none: on a machine that
    others use it says more than the other. `met` is None without an aim.
    """

    to: str
    role: Role
    value: float
    low: float
    high: float
    cpu: float | None
    aim: float | None
    met: bool | None


@attrs.frozen(kw_only=True)
class Result:
    """What one benchmark found. `missing` are contenders by name, with what is not installed."""

    id: str
    what: str
    unit: str
    figures: list[Figures] = attrs.field(factory=list)
    ratios: list[Ratio] = attrs.field(factory=list)
    missing: dict[str, list[str]] = attrs.field(factory=dict)
    bound: Bound | None = None
    most: float | None = None
    most_p95: float | None = None
    most_p99: float | None = None
    failed: str | None = None
    #: When it began, how many seconds it took with all setting up, and the load at its start.
    began: datetime | None = None
    seconds: float | None = None
    load: float | None = None

    @property
    def ours(self) -> Figures:
        """Our own figures."""
        return next(each for each in self.figures if each.role is Role.OURS)

    @property
    def least(self) -> Figures | None:
        """The figures of the bound, if it was measured."""
        names = () if self.bound is None else (self.bound.name,)
        return next((each for each in self.figures if each.name in names), None)


def figures(contender: Contender, rounds: Sequence[Round]) -> Figures:
    """Sum up one contender's rounds."""
    values = sorted(value for each in rounds for value in each.values)
    return Figures(
        name=contender.name,
        role=contender.role,
        median=median(values),
        p95=quantile(values, 0.95),
        p99=quantile(values, 0.99),
        spread=quantile(values, 0.75) - quantile(values, 0.25),
        cpu=median(each.cpu for each in rounds),
        count=len(values),
        medians=[median(each.values) for each in rounds],
        versions=contender.versions(),
    )


def result(benchmark: Benchmark, measured: dict[str, list[Round]], random: Random) -> Result:
    """Compare ours with every other contender that was measured."""
    present = [each for each in benchmark.contenders if each.name in measured]
    found = [figures(each, measured[each.name]) for each in present]
    ours = next((each for each in found if each.role is Role.OURS), None)
    others = [each for each in found if each.role is not Role.OURS] if ours else []
    return Result(
        id=benchmark.id,
        what=benchmark.what,
        unit=benchmark.unit,
        figures=found,
        ratios=[
            ratio(ours, other, measured[ours.name], measured[other.name], benchmark.aim, random)
            for other in others
            if ours is not None
        ],
        missing={each.name: lacks for each in benchmark.contenders if (lacks := each.missing())},
        bound=benchmark.bound,
        most=benchmark.aim.most,
        most_p95=benchmark.aim.most_p95,
        most_p99=benchmark.aim.most_p99,
    )


def ratio(
    ours: Figures,
    other: Figures,
    our_rounds: Sequence[Round],
    other_rounds: Sequence[Round],
    aim: Aim,
    random: Random,
) -> Ratio:
    """Divide the medians; the interval is a bootstrap over whole rounds.

    In one round both were measured side by side, so a round is drawn for both at once (a paired
    bootstrap): what slowed the machine for both cancels out.
    """
    a = [sorted(each.values) for each in our_rounds]
    b = [sorted(each.values) for each in other_rounds]
    drawn = []
    for _ in range(_RESAMPLES):
        picks = random.choices(range(len(a)), k=len(a))
        mine = [value for pick in picks for value in a[pick]]
        theirs = [value for pick in picks for value in b[pick]]
        drawn.append(median(mine) / median(theirs))
    drawn.sort()
    value, wanted = ours.median / other.median, aim.for_role(other.role)
    return Ratio(
        to=other.name,
        role=other.role,
        value=value,
        low=quantile(drawn, 0.025),
        high=quantile(drawn, 0.975),
        cpu=ours.cpu / other.cpu if ours.cpu and other.cpu else None,
        aim=wanted,
        met=None if wanted is None else value <= wanted,
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which that share of the ascending values lies, between two if need be."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
