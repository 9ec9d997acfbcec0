"""The rule that keeps a green CI from hiding tests that never ran."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import skip_policy

TESTS = Path(skip_policy.__file__).parent

CASES = [
    ("docker compose is not installed (apt-get install docker-compose)", True, False),
    ("rabbitmq-server is not installed (apt-get install rabbitmq-server)", True, False),
    ("../shared/data is not beside the checkout", True, False),
    ("../shared/data is not beside the checkout", False, True),
    ("no Docker engine answers", True, True),
    ("TELEGRAM_HYBRID_TEST_TIMESCALE_URL is not set", True, True),
    ("", True, False),
]


@pytest.mark.parametrize(("reason", "shared_data", "allowed"), CASES)
def test_only_what_ci_cannot_provide_may_be_skipped(
    reason: str, shared_data: bool, allowed: bool
) -> None:
    found = skip_policy.unexpected([("test_a", reason)], shared_data=shared_data)
    assert found == ([] if allowed else [("test_a", reason)])


def run_pytest(folder: Path, source: str, *options: str, ci: bool) -> tuple[int, str]:
    """Exit code and output of a run of its own, under the policy."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "conftest.py").write_text(
        "from skip_policy import pytest_sessionfinish, pytest_terminal_summary\n"
    )
    (folder / "test_one.py").write_text(source)
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "TELEGRAM_HYBRID_CI": "1" if ci else ""}
    environment = {k: v for k, v in environment.items() if not k.startswith("PYTEST_")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # half the time
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(folder)]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


SKIPPING = """
import pytest
def test_runs(): assert True
def test_needs_a_server(): pytest.skip("redis-server is not installed")
"""


@pytest.mark.parametrize("options", [(), ("-p", "xdist", "-n", "1")], ids=["alone", "xdist"])
def test_an_unexpected_skip_turns_a_ci_run_red_and_is_named(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    code, output = run_pytest(tmp_path, SKIPPING, *options, ci=True)
    assert code == 1, output
    assert "test_one.py::test_needs_a_server: Skipped: redis-server is not installed" in output


def test_the_same_skip_is_fine_on_a_developers_machine(tmp_path: Path) -> None:
    code, output = run_pytest(tmp_path, SKIPPING, ci=False)
    assert code == 0, output


def test_a_whole_module_that_is_skipped_counts_too(tmp_path: Path) -> None:
    source = 'import pytest\npytest.skip("kafka is missing", allow_module_level=True)\n'
    source_running = "def test_runs(): assert True\n"
    (tmp_path / "test_two.py").write_text(source_running)
    code, output = run_pytest(tmp_path, source, ci=True)
    assert code == 1, output
    assert "test_one.py: Skipped: kafka is missing" in output
