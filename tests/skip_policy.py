"""Which skipped tests are acceptable where everything that can be installed is installed (CI).

A skipped test proves nothing, and a suite that skips what it should prove stays green for ever.
So with TELEGRAM_HYBRID_CI=1 a run in which any test was skipped for a reason that is not listed
here fails, and names the tests. Elsewhere a skip is what it is: a part is not installed.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

SHARED_DATA = Path(
    os.environ.get("TELEGRAM_HYBRID_SHARED_DATA")
    or Path(__file__).resolve().parents[2] / "shared" / "data"
)

# What CI cannot provide. Searched in the reason of the skip.
_ALLOWED = [
    r"docker engine",  # the compose client needs none
    r"TELEGRAM_HYBRID_TEST_TIMESCALE_URL",  # TimescaleDB is in no package registry
]
_ALLOWED_WITHOUT_SHARED_DATA = [r"shared/data"]


def enforced() -> bool:
    """True where an unexpected skip turns the run red."""
    return os.environ.get("TELEGRAM_HYBRID_CI") == "1"


def unexpected(skips: Iterable[tuple[str, str]], *, shared_data: bool) -> list[tuple[str, str]]:
    """Those of `skips`, pairs of test and reason, that are on no list.

    `shared_data` says whether the real posts beside the checkout are there: if they are, a test
    that misses them looks in the wrong place.
    """
    patterns = _ALLOWED + ([] if shared_data else _ALLOWED_WITHOUT_SHARED_DATA)
    allowed = re.compile("|".join(patterns), re.IGNORECASE)
    return [(test, reason) for test, reason in skips if not allowed.search(reason)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Make the run red before anything else reads its exit status."""
    if enforced() and session.exitstatus == pytest.ExitCode.OK and _unexpected(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the tests, so that the red has a reason on the screen."""
    found = _unexpected(config) if enforced() else []
    if found:
        terminalreporter.section("skipped, though everything here can be installed", red=True)
        for test, reason in found:
            terminalreporter.write_line(f"{test}: {reason}", red=True)


def _unexpected(config: pytest.Config) -> list[tuple[str, str]]:
    # Only the process that prints sees the reports of all xdist workers.
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    skips = [(report.nodeid, _reason(report)) for report in reports]
    return unexpected(skips, shared_data=SHARED_DATA.is_dir())


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    detail = report.longrepr
    return detail[2] if isinstance(detail, tuple) else str(detail)
