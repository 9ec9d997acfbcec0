"""The benchmarks run, whatever changes inside: each contender that is installed does its work."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from benchmarks import rows
from benchmarks.benchmark import Benchmark, Plan, Role
from benchmarks.rows import processes
from benchmarks.running import run, turns
from benchmarks.stand import Scale, Stand
from servers.stack import NativeStack

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("benchmarks")]

BRIEFLY = Plan(rounds=2, calls=1, warmup=1)
# Those of whole processes take their time, and depend on nothing that may change inside.
BRIEF = [each for each in rows.ALL if each not in processes.ROWS]
# These do what other rows do, at another size or beside other figures.
LONG = ("growth-", "original-plan-", "latency-500", "point-read-730", "writer-tax-16")


def rarely(row: Benchmark) -> Any:
    """The row as a parameter, with the marker of those that need not run each time."""
    marks = [pytest.mark.long] if row.id.startswith(LONG) else []
    return pytest.param(row, id=row.id, marks=marks)


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    if missing := NativeStack.missing():
        pytest.skip(missing)
    with Stand(Scale.BRIEF) as servers:
        yield servers


@pytest.mark.parametrize("row", [rarely(row) for row in BRIEF])
def test_each_contender_does_its_work(stand: Stand, row: Benchmark) -> None:
    # Broken on purpose: with the key misspelt in the limit of get-hit, and with the fill left out
    # of what is replayed for get-miss ("what was loaded was not cached"), their rows failed.
    steps: list[None] = []

    result = run(row, stand, BRIEFLY, Random(1), lambda: steps.append(None))

    assert result.failed is None
    assert {each.role for each in result.figures} & {Role.LIMIT, Role.ALTERNATIVE}
    assert result.ours
    assert all(each.median > 0 for each in result.figures)
    measured, absent = {each.name for each in result.figures}, set(result.missing)
    assert measured | absent == {each.name for each in row.contenders}
    assert len(steps) == turns(row, BRIEFLY)
