"""Repositories, relay, consumer and leases: their suites once more, through PgBouncer (P9)."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.stack import NativeStack
from servers.valkey import Valkey

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SUITES = ["repositories", "delivery/test_leases.py", "delivery/test_relay.py"]
#: What leaves something behind in a server's session, which the pooler gives to the next client.
#: application_name is what PgBouncer itself keeps in step, for each client its own.
SESSION_STATE = re.compile(
    r"LOG:  (?:execute (?!<unnamed>)"
    r"|(?:statement|execute <unnamed>): \s*(?:SET (?!LOCAL\b|TRANSACTION\b|application_name=)"
    r"|RESET|DISCARD|(?:UN)?LISTEN|PREPARE|DEALLOCATE|DECLARE|LOAD|CREATE (?:LOCAL |GLOBAL )?TEMP"
    r"|.*\bpg_(?:try_)?advisory_(?:lock|unlock)|.*\bset_config\((?!.*, true\))|.*\bON COMMIT\b)).*",
    re.IGNORECASE,
)
SUITES += ["delivery/test_consumer.py", "delivery/test_consumer_dead_letters.py"]
SUITES += ["delivery/test_replay.py"]


@pytest.fixture
def servers(own_stack: NativeStack) -> NativeStack:
    """Transaction pooling with three server connections, so that they change hands all the time.

    PostgreSQL writes every statement into its log.
    """
    own_stack.add("pgbouncer/pgbouncer.ini", "default_pool_size = 3", "reserve_pool_size = 0")
    own_stack.add("postgres/postgresql.conf", "log_statement = all")
    own_stack.start(own_stack.postgres, own_stack.pgbouncer)
    return own_stack


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    server = Valkey()
    yield server
    server.stop()


def test_the_suites_of_the_main_paths_pass_through_transaction_pooling(
    servers: NativeStack, valkey: Valkey, request: pytest.FixtureRequest
) -> None:
    """Migrations too: for these suites the pooler is the only database there is.

    Seen to fail: when partitions were made from within a transaction that had begun, eight writers
    held all three server connections and waited for a fourth; with psycopg's own
    prepare_threshold, by the statements in the server's log alone, too.
    """
    socket = valkey.url.removeprefix("unix://")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TELEGRAM_HYBRID_TEST_DATABASE_URL": servers.pooler_url,
        "TELEGRAM_HYBRID_TEST_REDIS_URL": valkey.url,
        "TELEGRAM_HYBRID_TEST_BROKER_URL": f"redis+socket://{socket}?virtual_host=0",
    }
    here = Path(__file__).parents[1]
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    # Where the package is installed, pytest finds its plugin by itself.
    plugin = "telegram_hybrid.testing.plugin"
    words += ["-p", plugin] if request.config.pluginmanager.has_plugin(plugin) else []
    # What a dead Redis or another broker changes, the pooler does not see; servers of other kinds
    # are not behind it; plans are told by an extension that is loaded into the session; and what
    # searching, counting and sixteen processes say to the database, others say as well.
    words += [
        "-k",
        "not rabbit and not nacked and not [dead and not test_plans and not test_search"
        " and not test_statistics and not test_crowd"
        " and not [plain and not -plain] and not [timescale and not -timescale]",
        "-o",
        "addopts=--import-mode=importlib --strict-markers -m 'not long'",
    ]
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
    said = servers.postgres.log.read_text(errors="replace")
    print(f"{said.count('LOG:  ')} lines in the server's log")
    assert said.count("LOG:  execute <unnamed>: ") > 500
    assert SESSION_STATE.findall(said) == []


def test_what_would_leave_something_in_a_session_is_found_in_a_log() -> None:
    for statement in (
        "statement: SET search_path = x",
        "execute _pg3_0: SELECT 1",
        "statement: LISTEN news",
        "statement: SELECT pg_advisory_lock(1)",
        "execute <unnamed>: SELECT pg_try_advisory_lock($1)",
        "statement: DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "statement: CREATE TEMP TABLE x ()",
        "statement: SELECT set_config('a.b', 'c', false)",
    ):
        assert SESSION_STATE.search(f"2026 LOG:  {statement}"), statement
    for statement in (
        "statement: SET LOCAL search_path TO x",
        "statement: SET application_name='telegram_hybrid';",
        "execute <unnamed>: SELECT pg_advisory_xact_lock($1)",
        "execute <unnamed>: SELECT set_config('a.b', $1, true)",
        "statement: SELECT 'SET x'",
    ):
        assert not SESSION_STATE.search(f"2026 LOG:  {statement}"), statement
