"""Benchmarks run when they are asked for: `pytest tests/benchmarks`, or `nox -s benchmarks`."""

from __future__ import annotations

import pytest


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave this folder out of a run that names neither it nor its mark."""
    asked = any("benchmarks" in argument for argument in [*config.args, config.option.markexpr])
    return None if asked else True
