"""The machine and the versions: what figures depend on, kept beside them."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import attrs
from servers.versions import report

#: Above this load (one minute's average) times are others' doing; CPU ratios still hold.
QUIET = 1.5
#: Whether rows have sizes that take an hour to measure, for those who have it.
LONG = os.environ.get("TELEGRAM_HYBRID_BENCH_LONG") == "1"


@attrs.frozen(kw_only=True)
class About:
    """Where and when a run took place. `load_*` are averages of one minute."""

    begun: datetime
    seed: int
    quick: bool
    long: bool = False
    cpu: str
    cores: int
    system: str
    python: str
    versions: list[str]
    load_at_start: float
    load_at_end: float | None = None

    @property
    def quiet(self) -> bool:
        """Whether the machine was ours when the run began.

        The load at the end says less: by then it is our own.
        """
        return self.load_at_start < QUIET


def about(*, seed: int, quick: bool) -> About:
    """Look at this machine now."""
    return About(
        begun=datetime.now(UTC).replace(microsecond=0),
        seed=seed,
        quick=quick,
        long=LONG,
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        system=platform.platform(),
        python=platform.python_version(),
        versions=report()[1:],  # not where the package lies
        load_at_start=load(),
    )


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def quiet() -> bool:
    """Whether nobody else uses this machine to speak of."""
    return load() < QUIET


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
