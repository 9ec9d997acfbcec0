"""Running: open what a benchmark compares, measure, compare, close."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import ExitStack
from random import Random

from benchmarks.benchmark import Benchmark, Operation, Plan, Role
from benchmarks.figures import Result, result
from benchmarks.measuring import measure
from benchmarks.stand import Stand


def run(
    benchmark: Benchmark,
    stand: Stand,
    plan: Plan,
    random: Random,
    advance: Callable[[], object] = lambda: None,
) -> Result:
    """Run one benchmark with those contenders that are installed.

    Whatever goes wrong is the result: one broken row does not end the run.
    """
    try:
        with ExitStack() as opened:
            shared = opened.enter_context(benchmark.around(stand))
            operations: dict[str, Operation] = {}
            for each in benchmark.contenders:
                if each.role is Role.OURS or not each.missing():
                    operations[each.name] = opened.enter_context(each.open(shared))
            gc.collect()
            gc.freeze()  # what the setups left is nobody's garbage to look through
            opened.callback(gc.unfreeze)
            measured = measure(
                operations, plan, random=random, expected=benchmark.expected, advance=advance
            )
    except Exception as error:  # noqa: BLE001
        failed = f"{type(error).__name__}: {error}"
        return Result(id=benchmark.id, what=benchmark.what, unit=benchmark.unit, failed=failed)
    return result(benchmark, measured, random)


def turns(benchmark: Benchmark, plan: Plan) -> int:
    """How often `advance` will be called."""
    count = sum(not each.missing() for each in benchmark.contenders)
    return count * (plan.rounds + 1)
