"""Measuring: contenders warm up, then take turns in random order, round by round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from time import perf_counter, process_time
from typing import Any

import attrs

from benchmarks.benchmark import Operation, Plan


class WrongAnswer(Exception):
    """A contender did not do the work, so its time says nothing."""


@attrs.frozen
class Round:
    """One turn of one contender: a value for each call, and the client's CPU seconds for one.

    Both are for one unit of work. CPU is that of this process: what the servers burn is not in it.
    """

    values: list[float]
    cpu: float


@attrs.frozen(kw_only=True)
class Clocks:
    """Where time comes from, in seconds."""

    wall: Callable[[], float] = perf_counter
    cpu: Callable[[], float] = process_time


def measure(
    operations: Mapping[str, Operation],
    plan: Plan,
    *,
    random: Random,
    clocks: Clocks = Clocks(),
    expected: Callable[[Any], Any] | None = None,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, list[Round]]:
    """Return the rounds of each contender, by name, in the order in which they were run.

    `advance` is called after each turn. Raises `WrongAnswer` from the warm-up.
    """
    for name, operation in operations.items():
        answered = _warm_up(operation, plan.warmup)
        if expected is not None:
            for given, answer in answered:
                if answer != expected(given):
                    raise WrongAnswer(f"{name} answered {given!r} with {answer!r}")
        advance()
    rounds: dict[str, list[Round]] = {name: [] for name in operations}
    for _ in range(plan.rounds):
        order = list(operations)
        random.shuffle(order)
        for name in order:
            rounds[name].append(_turn(operations[name], plan.calls, clocks))
            advance()
    return rounds


def _warm_up(operation: Operation, calls: int) -> list[tuple[Any, Any]]:
    inputs = operation.inputs(calls)
    if operation.runner is None:
        return [(each, operation.call(each)) for each in inputs]

    async def all_of_them() -> list[tuple[Any, Any]]:
        return [(each, await operation.call(each)) for each in inputs]

    return operation.runner.run(all_of_them())


def _turn(operation: Operation, calls: int, clocks: Clocks) -> Round:
    inputs = operation.inputs(calls)
    if operation.tells:
        told = [operation.call(each) for each in inputs]
        cpu = sum(seconds for _, seconds in told) / (len(told) * operation.per)
        return Round([value / operation.per for value, _ in told], cpu)
    begun = clocks.cpu()
    if operation.runner is None:
        seconds = _timed(operation.call, inputs, clocks.wall)
    else:
        seconds = operation.runner.run(_timed_inside(operation.call, inputs, clocks.wall))
    cpu = clocks.cpu() - begun
    units = len(inputs) * operation.per
    return Round([each / operation.per for each in seconds], cpu / units)


def _timed(
    call: Callable[[Any], Any], inputs: Sequence[Any], clock: Callable[[], float]
) -> list[float]:
    seconds = []
    for each in inputs:
        begun = clock()
        call(each)
        seconds.append(clock() - begun)
    return seconds


async def _timed_inside(
    call: Callable[[Any], Any], inputs: Sequence[Any], clock: Callable[[], float]
) -> list[float]:
    seconds = []
    for each in inputs:
        begun = clock()
        await call(each)
        seconds.append(clock() - begun)
    return seconds
