"""What a benchmark is: contenders that do the same work, and how near we want to be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import attrs


class Role(StrEnum):
    """What a contender is there for."""

    OURS = "ours"
    #: The least that the same answer costs: the driver, and nothing above it.
    LIMIT = "limit"
    #: What somebody would use instead of us.
    ALTERNATIVE = "alternative"
    #: Less than the same work, to show what the machine can do.
    FLOOR = "floor"
    #: What a document says, which nobody measured here; no aim refers to it.
    TOLD = "told"


def _no_inputs(calls: int) -> Sequence[None]:
    return [None] * calls


@attrs.frozen(kw_only=True)
class Operation:
    """The work of one contender, ready to run.

    `inputs` prepares that many calls, outside of the measured time, and gives what each is
    called with. One call does `per` units of work; figures are for one. With a `runner`, `call`
    is a coroutine function, and every call is timed inside the running loop: neither starting
    the loop nor entering it is counted. If `tells`, a call
    returns its own value and CPU seconds (0 for unknown), as one that is measured elsewhere.
    """

    call: Callable[[Any], Any]
    inputs: Callable[[int], Sequence[Any]] = _no_inputs
    per: int = 1
    runner: asyncio.Runner | None = None
    tells: bool = False


@attrs.frozen
class Contender:
    """One of those who are compared. `needs` are the distributions that it is made of.

    `open` is given what the benchmark's `around` gives.
    """

    name: str
    role: Role
    open: Callable[[Any], AbstractContextManager[Operation]]
    needs: tuple[str, ...] = attrs.field(default=(), kw_only=True)

    def missing(self) -> list[str]:
        """The distributions that are not installed."""
        return [name for name in self.needs if _version(name) is None]

    def versions(self) -> dict[str, str]:
        """The versions of what it is made of."""
        return {name: found for name in self.needs if (found := _version(name))}


@attrs.frozen
class Plan:
    """How often: `rounds` of `calls` by each contender, after `warmup` calls."""

    rounds: int
    calls: int
    warmup: int


@attrs.frozen
class Aim:
    """The largest ratio to the limit, and to each alternative; None for no aim."""

    limit: float | None = None
    alternatives: float | None = None
    #: The same for the ratio to each floor, which seldom has one.
    floors: float | None = None
    #: The largest median of ours, in the benchmark's unit: shown, and never asserted.
    most: float | None = None
    #: The same for its 95th percentile.
    most_p95: float | None = None
    #: The same for its 99th percentile.
    most_p99: float | None = None

    def for_role(self, role: Role) -> float | None:
        """The aim for the ratio to a contender of that role."""
        aims = {Role.LIMIT: self.limit, Role.ALTERNATIVE: self.alternatives}
        return {**aims, Role.FLOOR: self.floors}.get(role)


@attrs.frozen
class Bound:
    """The contender below which nobody who does all of the work can come, and why.

    A missed aim is shown beside what that contender reached in the same run: if it missed too,
    the aim is out of reach. With `beyond`, another contender, the bound of a ratio is what
    this one takes longer than that one, on top of whom ours is compared with.
    """

    name: str
    why: str
    beyond: str | None = None

    @property
    def names(self) -> set[str]:
        """Of whom it is made."""
        return {self.name} if self.beyond is None else {self.name, self.beyond}


@attrs.frozen(kw_only=True)
class Benchmark:
    """A comparison.

    `unit` is "s" (seconds), "B" (bytes) or "%" (a share of 1). `around` makes from the servers
    what its contenders share. `expected` gives the answer to an input, if there is one: every
    contender has to give it while it warms up.
    """

    id: str
    what: str
    contenders: tuple[Contender, ...]
    plan: Plan
    quick: Plan
    aim: Aim = Aim()
    bound: Bound | None = None
    unit: str = "s"
    expected: Callable[[Any], Any] | None = None
    around: Callable[[Any], AbstractContextManager[Any]] = nullcontext

    def __attrs_post_init__(self) -> None:
        if [each.role for each in self.contenders].count(Role.OURS) != 1:
            raise ValueError(f"{self.id}: exactly one contender is ours")
        if len({each.name for each in self.contenders}) != len(self.contenders):
            raise ValueError(f"{self.id}: contenders need different names")
        others = {each.name for each in self.contenders if each.role is not Role.OURS}
        if self.bound is not None and (unknown := self.bound.names - others):
            raise ValueError(f"{self.id}: nobody else is called {min(unknown)!r}")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
