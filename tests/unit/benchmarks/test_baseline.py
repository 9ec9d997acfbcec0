"""What counts as worse than the baseline, and what a table must not leave out."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import baseline, rows
from benchmarks.baseline import Baseline
from benchmarks.benchmark import Role
from benchmarks.figures import Figures, Ratio, Result
from benchmarks.overview import amount
from benchmarks.table import HEAD, markdown
from benchmarks.table import rows as lines

from .conftest import ABOUT, WHEN


def kept(**ratios: dict[str, float]) -> Baseline:
    return Baseline(WHEN, False, 0.1, ratios)


def figures(name: str, role: Role, median: float) -> Figures:
    return Figures(
        name=name,
        role=role,
        median=median,
        p95=1,
        p99=3,
        spread=0,
        cpu=0,
        count=1,
        medians=[median],
    )


def ratio(to: str, role: Role, value: float, **fields: object) -> Ratio:
    told = {"low": value, "high": value, "cpu": None, "aim": None, "met": None, **fields}
    return Ratio(to=to, role=role, value=value, **told)


def test_only_a_ratio_that_grew_by_more_than_the_tolerance_is_worse() -> None:
    # Broken on purpose: with `>=` the unchanged ratio of a tolerance of 0 was named.
    old = kept(get={"limit": 1.0, "other": 0.5}, save={"limit": 2.0})
    new = kept(get={"limit": 1.14, "other": 0.6}, save={"limit": 2.0}, more={"limit": 9.0})

    (found,) = baseline.worse(old, new)

    assert str(found) == "get: 0.50 of other before, 0.60 now (+20%)"
    assert len(baseline.worse(old, new, tolerance=0)) == 2


def test_a_contender_of_the_baseline_that_is_gone_is_named() -> None:
    old = kept(get={"limit": 1.0, "other": 0.5}, save={"limit": 2.0})

    assert baseline.unmeasured(old, kept(get={"limit": 1.0})) == ["get: other"]


def test_a_baseline_is_written_and_read_and_keeps_what_a_run_left_out(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    results = [
        Result(
            id="get",
            what="x",
            unit="s",
            ratios=[
                ratio("limit", Role.LIMIT, 1.23456),
                ratio("floor", Role.FLOOR, 7.0),
                ratio("plan", Role.TOLD, 7.0),
            ],
        ),
        Result(id="broken", what="x", unit="s", failed="no"),
    ]

    new = baseline.merged(kept(save={"limit": 2.0}), baseline.baseline(ABOUT, results))
    baseline.store(path, new)

    assert baseline.load(path) == new
    assert new.ratios == {"get": {"limit": 1.235}, "save": {"limit": 2.0}}
    assert new.load == 4.0


def test_the_table_names_what_is_missing_failed_missed_and_busy() -> None:
    result = Result(
        id="get",
        what="one message",
        unit="s",
        figures=[figures("ours", Role.OURS, 2.0), figures("them", Role.LIMIT, 1.0)],
        ratios=[ratio("them", Role.LIMIT, 2.0, aim=1.25, met=False)],
        missing={"aiocache": ["aiocache", "uvloop"]},
        most=2.5,
        most_p95=1.0,
        most_p99=2.5,
    )

    page = markdown(ABOUT, [result, Result(id="save", what="y", unit="s", failed="OSError: no")])

    assert "missing: aiocache (not installed: aiocache, uvloop)" in page
    assert "≤ 1.25 MISSED" in page
    assert "≤ 2.5 s met; p95 ≤ 1 s met; p99 ≤ 2.5 s MISSED" in page
    assert "failed: OSError: no" in page
    assert "busy" in page
    assert {len(each) for each in lines(result)} == {len(HEAD)}


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (0.0000445, "s", "44.5 µs"),
        (1.5, "s", "1.5 s"),
        (0.9996, "s", "1000 ms"),
        (3e-10, "s", "0.3 ns"),
        (61_500_000.0, "B", "61.5 MB"),
        (0.0, "s", "0 ns"),
    ],
)
def test_amounts_have_three_digits(value: float, unit: str, written: str) -> None:
    assert amount(value, unit) == written


def test_benchmarks_are_chosen_by_name_or_by_its_beginning() -> None:
    assert [each.id for each in rows.chosen(["seen", "get-hit"])] == [
        "get-hit",
        "seen-1",
        "seen-1000",
    ]
    assert [each.id for each in rows.chosen(["save"])] == ["save"]
    assert rows.chosen([]) == list(rows.ALL)
    with pytest.raises(LookupError, match="no benchmark is called 'set'"):
        rows.chosen(["set"])


def test_benchmarks_have_different_names() -> None:
    assert len({each.id for each in rows.ALL}) == len(rows.ALL)
