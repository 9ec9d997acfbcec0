"""PostgreSQL and PgBouncer boot from the written files, and let in whom they should."""

import os
import subprocess
import sys

import psycopg
import pytest
from servers.stack import NativeStack

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _servers(stack: NativeStack) -> None:
    stack.start(stack.postgres, stack.pgbouncer)


def pooled(stack: NativeStack, **options: object) -> psycopg.Connection:
    return stack.connect(conninfo=stack.pooler_url, **options)


def test_the_server_took_every_line_of_its_two_files(stack: NativeStack) -> None:
    assert stack.postgres.psql("-c", "SELECT name FROM pg_file_settings WHERE NOT applied") == ""
    assert (
        stack.postgres.psql("-c", "SELECT line_number FROM pg_hba_file_rules WHERE error <> ''")
        == ""
    )
    assert stack.postgres.psql("-c", "SHOW shared_preload_libraries") == "pg_stat_statements"


def test_the_application_gets_in_directly_and_through_the_pooler(stack: NativeStack) -> None:
    # Seen to fail without the GRANT on pgbouncer.lookup: "bouncer config error".
    for connection in (stack.connect(), pooled(stack)):
        with connection:
            assert connection.execute("SELECT current_user, current_database()").fetchone() == (
                "telegram",
                "telegram",
            )


@pytest.mark.parametrize("user", ["postgres", "nobody", "pgbouncer"])
def test_nobody_else_gets_in_over_the_network(stack: NativeStack, user: str) -> None:
    for connect in (stack.connect, lambda **options: pooled(stack, **options)):
        with pytest.raises(psycopg.OperationalError) as refused:
            connect(user=user)
        assert stack.env["TELEGRAM_DB_PASSWORD"] not in str(refused.value)


def test_a_wrong_password_is_refused_by_both(stack: NativeStack) -> None:
    for connect in (stack.connect, lambda **options: pooled(stack, **options)):
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            connect(password="wrong")


def test_the_application_reads_no_verifier_and_makes_no_role(stack: NativeStack) -> None:
    # Seen to fail with the schema and the function left to PUBLIC: the lookup answered.
    for forbidden in (
        "SELECT * FROM pgbouncer.lookup('telegram')",
        "SELECT rolpassword FROM pg_authid",
        "CREATE ROLE other",
        "CREATE DATABASE other",
    ):
        with stack.connect() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(forbidden)


def test_the_lookup_never_tells_a_superusers_verifier(stack: NativeStack) -> None:
    # Seen to fail without "NOT rolsuper" in the function.
    stack.postgres.psql("-c", "CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'secret'")

    def look_up(name: str) -> str:
        # In the application's database, where the function is; psql is the superuser there, too.
        query = f"SELECT username FROM pgbouncer.lookup('{name}')"
        return stack.postgres.psql("-c", query, database="telegram")

    assert (look_up("boss"), look_up("telegram")) == ("", "telegram")


def test_the_written_env_is_all_that_migrate_needs(stack: NativeStack) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "telegram_hybrid", "migrate", "up"],
        env={**os.environ, **stack.env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with pooled(stack) as connection:
        assert connection.execute("SELECT count(*) FROM telegram_gateway.outbox").fetchone() == (0,)
