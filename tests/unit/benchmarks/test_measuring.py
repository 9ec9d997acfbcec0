"""Measuring, by clocks that the tests turn themselves."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from benchmarks.benchmark import Operation, Plan
from benchmarks.measuring import Clocks, WrongAnswer, measure


class Time:
    """A clock that only moves when work is done."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []
        self.clocks = Clocks(wall=lambda: self.now, cpu=lambda: self.now / 4)

    def work(self, name: str, seconds: float) -> Any:
        def call(given: Any) -> Any:
            self.order.append(name)
            self.now += seconds
            return given

        return call

    def preparing(self, seconds: float) -> Any:
        def inputs(calls: int) -> list[int]:
            self.now += seconds
            return list(range(calls))

        return inputs


def test_a_call_costs_what_the_clock_says_and_preparing_it_costs_nothing() -> None:
    time = Time()
    one = Operation(call=time.work("one", 2.0), inputs=time.preparing(100.0))

    (first, second) = measure({"one": one}, Plan(2, 3, 1), random=Random(1), clocks=time.clocks)[
        "one"
    ]

    # Broken on purpose: with `inputs` called after the first reading of the clocks, cpu was 8.8.
    assert first.values == second.values == [2.0, 2.0, 2.0]
    assert first.cpu == 0.5


def test_every_contender_has_its_turn_in_every_round_in_changing_order() -> None:
    # Broken on purpose: without the shuffle all rounds had the same order.
    time = Time()
    names = ["a", "b", "c", "d"]
    operations = {name: Operation(call=time.work(name, 1.0)) for name in names}

    measure(operations, Plan(20, 1, 0), random=Random(7), clocks=time.clocks)

    rounds = [time.order[at : at + 4] for at in range(0, 80, 4)]
    assert all(sorted(each) == names for each in rounds)
    assert len({tuple(each) for each in rounds}) > 5


def test_the_same_seed_gives_the_same_order() -> None:
    orders = []
    for _ in range(2):
        time = Time()
        operations = {name: Operation(call=time.work(name, 1.0)) for name in "abc"}
        measure(operations, Plan(10, 1, 0), random=Random(5), clocks=time.clocks)
        orders.append(time.order)

    assert orders[0] == orders[1]


def test_figures_are_for_one_unit_of_work() -> None:
    time = Time()
    batch = Operation(call=time.work("batch", 10.0), per=5)

    (only,) = measure({"batch": batch}, Plan(1, 2, 0), random=Random(1), clocks=time.clocks)[
        "batch"
    ]

    assert only.values == [2.0, 2.0]
    assert only.cpu == 0.5


def test_a_contender_that_tells_its_own_value_is_believed() -> None:
    time = Time()
    child = Operation(call=lambda _: (42.0, 7.0), per=2, tells=True)

    (only,) = measure({"child": child}, Plan(1, 2, 0), random=Random(1), clocks=time.clocks)[
        "child"
    ]

    assert (only.values, only.cpu) == ([21.0, 21.0], 3.5)


def test_a_coroutine_is_timed_inside_its_loop() -> None:
    time = Time()
    work = time.work("async", 3.0)

    async def call(given: Any) -> Any:
        await asyncio.sleep(0)
        return work(given)

    with asyncio.Runner() as runner:
        operation = Operation(call=call, runner=runner)
        (only,) = measure(
            {"async": operation}, Plan(1, 2, 1), random=Random(1), clocks=time.clocks
        )["async"]

    assert only.values == [3.0, 3.0]


def test_a_contender_that_answers_wrongly_is_not_measured() -> None:
    # Broken on purpose: without the check a cache that had nothing was the fastest of all.
    time = Time()
    operations = {
        "right": Operation(call=time.work("right", 1.0), inputs=time.preparing(0)),
        "wrong": Operation(call=lambda _: None, inputs=time.preparing(0)),
    }

    with pytest.raises(WrongAnswer, match="wrong answered 0 with None"):
        measure(operations, Plan(1, 1, 1), random=Random(1), expected=lambda given: given)

    assert time.order == ["right"]


def test_progress_advances_once_for_each_turn() -> None:
    time, steps = Time(), []
    operations = {name: Operation(call=time.work(name, 1.0)) for name in "ab"}

    measure(
        operations,
        Plan(3, 1, 1),
        random=Random(1),
        clocks=time.clocks,
        advance=lambda: steps.append(1),
    )

    assert len(steps) == 2 * (3 + 1)
