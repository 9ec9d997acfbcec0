"""A machine that runs nothing, for results that nobody measured."""

from __future__ import annotations

from datetime import UTC, datetime

from benchmarks.machine import About

WHEN = datetime(2026, 11, 1, tzinfo=UTC)
ABOUT = About(
    begun=WHEN,
    seed=1,
    quick=True,
    cpu="some cpu",
    cores=2,
    system="Linux",
    python="3.11",
    versions=["drivers: redis 8.1.0"],
    load_at_start=4.0,
)
