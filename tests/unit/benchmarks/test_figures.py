"""Medians, spreads and ratios, of rounds whose answer is known."""

from __future__ import annotations

from contextlib import nullcontext
from random import Random

import pytest
from benchmarks.benchmark import Aim, Benchmark, Contender, Operation, Plan, Role
from benchmarks.figures import figures, quantile, result
from benchmarks.measuring import Round


def contender(name: str, role: Role, **fields: object) -> Contender:
    return Contender(name, role, lambda _: nullcontext(Operation(call=lambda _: None)), **fields)


def benchmark(*contenders: Contender, **fields: object) -> Benchmark:
    plan = Plan(1, 1, 0)
    return Benchmark(id="x", what="x", contenders=contenders, plan=plan, quick=plan, **fields)


OURS, LIMIT = contender("ours", Role.OURS), contender("limit", Role.LIMIT)


def rounds(*medians: float) -> list[Round]:
    return [Round([each, each, each], each / 2) for each in medians]


def test_quantiles_lie_between_neighbours() -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0, 5.0], 0.5) == 3.0
    assert quantile([0.0, 10.0], 0.95) == pytest.approx(9.5)
    assert quantile([7.0], 0.95) == 7.0


def test_figures_are_of_all_calls() -> None:
    found = figures(OURS, [Round([1.0, 2.0, 3.0], 0.5), Round([4.0, 5.0, 100.0], 0.7)])

    assert (found.median, found.count, found.medians) == (3.5, 6, [2.0, 5.0])
    assert found.p95 == pytest.approx(76.25)
    assert found.spread == pytest.approx(4.75 - 2.25)
    assert found.cpu == pytest.approx(0.6)


def test_a_ratio_is_ours_by_theirs_and_its_interval_is_paired() -> None:
    # The machine was ten times slower in every second round, for both alike.
    # Broken on purpose: with rounds drawn for each alone the interval was 0.2 to 20.
    measured = {"ours": rounds(*[2.0, 20.0] * 10), "limit": rounds(*[1.0, 10.0] * 10)}

    (ratio,) = result(benchmark(OURS, LIMIT, aim=Aim(limit=1.5)), measured, Random(1)).ratios

    assert ratio.value == ratio.low == ratio.high == pytest.approx(2.0)
    assert ratio.cpu == pytest.approx(2.0)
    assert (ratio.aim, ratio.met) == (1.5, False)


def test_the_interval_is_wide_where_rounds_disagree() -> None:
    measured = {"ours": rounds(1.0, 1.1, 3.0, 0.9, 2.8), "limit": rounds(1.0, 1.0, 1.0, 1.0, 1.0)}

    (ratio,) = result(benchmark(OURS, LIMIT), measured, Random(1)).ratios

    assert ratio.low < ratio.value < ratio.high
    assert (ratio.aim, ratio.met) == (None, None)


def test_no_aim_is_held_against_a_floor() -> None:
    floor = contender("floor", Role.FLOOR)
    measured = {"ours": rounds(9.0), "floor": rounds(1.0)}
    aim = Aim(limit=1.0, alternatives=1.0)

    (ratio,) = result(benchmark(OURS, floor, aim=aim), measured, Random(1)).ratios

    assert (ratio.value, ratio.met) == (9.0, None)


def test_a_contender_that_is_not_installed_is_named() -> None:
    # Broken on purpose: with `missing` taken from those that were measured it was empty.
    absent = contender("absent", Role.ALTERNATIVE, needs=("msgspec", "no-such-distribution"))

    found = result(benchmark(OURS, absent), {"ours": rounds(1.0)}, Random(1))

    assert found.missing == {"absent": ["no-such-distribution"]}
    assert found.ratios == []


@pytest.mark.parametrize("some", [(LIMIT,), (OURS, OURS), (OURS, LIMIT, LIMIT)])
def test_a_benchmark_has_one_of_ours_and_names_that_differ(some: tuple[Contender, ...]) -> None:
    with pytest.raises(ValueError, match="x: "):
        benchmark(*some)
