"""Repositories, relay, consumer and leases: their suites once more, through PgBouncer (P9)."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.pgbouncer import PgBouncer
from servers.postgres import Postgres
from servers.valkey import Valkey

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SUITES = ["repositories", "delivery/test_leases.py", "delivery/test_relay.py"]
SUITES += ["delivery/test_consumer.py", "delivery/test_replay.py"]


@pytest.fixture
def pgbouncer() -> Iterator[PgBouncer]:
    """Transaction pooling with three server connections, so that they change hands all the time."""
    if missing := PgBouncer.available():
        pytest.skip(missing)
    postgres = Postgres()
    try:
        with PgBouncer(postgres, pool_size=3) as pooler:
            yield pooler
            pooler.delete()
    finally:
        postgres.delete()


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    server = Valkey()
    yield server
    server.stop()


def test_the_suites_of_the_main_paths_pass_through_transaction_pooling(
    pgbouncer: PgBouncer, valkey: Valkey, request: pytest.FixtureRequest
) -> None:
    """Migrations too: for these suites the pooler is the only database there is.

    Seen to fail: when partitions were made from within a transaction that had begun, eight writers
    held all three server connections and waited for a fourth.
    """
    socket = valkey.url.removeprefix("unix://")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TELEGRAM_HYBRID_TEST_DATABASE_URL": pgbouncer.url,
        "TELEGRAM_HYBRID_TEST_REDIS_URL": valkey.url,
        "TELEGRAM_HYBRID_TEST_BROKER_URL": f"redis+socket://{socket}?virtual_host=0",
    }
    here = Path(__file__).parents[1]
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    # Where the package is installed, pytest finds its plugin by itself.
    plugin = "telegram_hybrid.testing.plugin"
    words += ["-p", plugin] if request.config.pluginmanager.has_plugin(plugin) else []
    words += ["-k", "not rabbit", "-o", "addopts=--import-mode=importlib --strict-markers"]
    done = subprocess.run(
        [*words, *(str(here / suite) for suite in SUITES)],
        cwd=here.parents[1],
        env=environment,
        capture_output=True,
        text=True,
    )
    last = done.stdout.strip().splitlines()[-1]
    print(f"\nthrough PgBouncer: {last}")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", last)
    assert passed is not None
    assert int(passed.group(1)) > 60
