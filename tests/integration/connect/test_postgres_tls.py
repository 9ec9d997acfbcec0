"""PostgreSQL's own TLS and PgBouncer's: what is proven to whom, and what a lost connection is."""

import os
import shutil
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from servers.stack import NativeStack
from sqlalchemy import text

from telegram_hybrid.connect import postgres
from telegram_hybrid.connect.postgres.routes import Route
from telegram_hybrid.errors import CommitUnknown, DatabaseError, DatabaseUnavailable
from telegram_hybrid.settings import Settings

# One worker of xdist: its servers serve every test here.
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("postgres-tls")]

TLS = Path(__file__).parents[2] / "servers/tls"
ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture(scope="module")
def stack() -> Iterator[NativeStack]:
    """As deployed, with TLS in PostgreSQL; PgBouncer insists on it."""
    if missing := NativeStack.missing():
        pytest.skip(missing)
    with NativeStack() as servers:
        show(servers, "valid.pem")
        at = servers.folder
        own(TLS / "valid.pem", at / "pgbouncer/cert.pem")
        own(TLS / "key.pem", at / "key.pem")
        servers.add(
            "postgres/postgresql.conf",
            "ssl = on",
            f"ssl_cert_file = '{at}/cert.pem'",
            f"ssl_key_file = '{at}/key.pem'",
        )
        servers.add(
            "pgbouncer/pgbouncer.ini",
            "client_tls_sslmode = require",
            f"client_tls_cert_file = {at}/pgbouncer/cert.pem",
            f"client_tls_key_file = {at}/key.pem",
        )
        servers.start(servers.postgres, servers.pgbouncer)
        yield servers


@pytest.fixture
def url(stack: NativeStack) -> str:
    """Leads to PostgreSQL itself."""
    return stack.settings.database_url


def show(stack: NativeStack, certificate: str) -> None:
    """Take this certificate, from the next start on."""
    own(TLS / certificate, stack.folder / "cert.pem")


def own(source: Path, target: Path) -> None:
    """Copy a file for the servers' user alone."""
    shutil.copyfile(source, target)
    target.chmod(0o600)
    owner = target.parent.stat()
    os.chown(target, owner.st_uid, owner.st_gid)


def ask(url: str, pooler_url: str | None = None) -> tuple[bool, tuple[Route, str | None]]:
    """Whether the server's side is encrypted, and which way the answer came."""
    settings = Settings(database_url=url, pooler_url=pooler_url, connect_timeout=2.0)
    engine = postgres.open_engine(settings, pooled=False)
    with postgres.transaction(engine) as connection:
        return connection.execute(text(ENCRYPTED)).scalar_one(), postgres.route(engine)


def refusal(url: str) -> DatabaseError:
    with pytest.raises(DatabaseError) as caught:
        ask(url)
    assert not caught.value.retryable
    assert str(urlsplit(url).password) not in "".join(traceback.format_exception(caught.value))
    return caught.value


@pytest.mark.parametrize(
    ("options", "encrypted"),
    [
        ("sslmode=disable", False),
        ("sslmode=require", True),
        (f"sslmode=verify-ca&sslrootcert={TLS}/valid.pem", True),
        (f"sslmode=verify-full&sslrootcert={TLS}/valid.pem", True),
        # verify-ca does not look at the name, and says so in its own.
        (f"sslmode=verify-ca&sslrootcert={TLS}/valid.pem&hostaddr=127.0.0.1", True),
    ],
)
def test_each_mode_is_passed_on_to_the_driver(url: str, options: str, encrypted: bool) -> None:
    url = url.replace("127.0.0.1", "db.example") if "hostaddr" in options else url
    assert ask(f"{url}?{options}") == (encrypted, (Route.DIRECT, None))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (f"sslmode=verify-ca&sslrootcert={TLS}/expired.pem", "certificate verify failed"),
        (f"sslmode=verify-full&sslrootcert={TLS}/none.pem", "does not exist"),
        (f"sslmode=verify-full&sslrootcert={TLS}/valid.pem&hostaddr=127.0.0.1", "does not match"),
    ],
    ids=["another authority", "no authority", "another name"],
)
def test_who_proves_nothing_is_refused_by_host_and_setting(
    url: str, options: str, told: str
) -> None:
    host = "db.example" if "hostaddr" in options else "127.0.0.1"
    error = refusal(f"{url.replace('127.0.0.1', host)}?{options}")
    assert f"PostgreSQL at {host}:{urlsplit(url).port}/telegram" in str(error)
    assert told in str(error)
    assert "sslrootcert in TELEGRAM_DATABASE_URL" in str(error)


def test_an_expired_certificate_is_refused_by_host_and_setting(
    stack: NativeStack, url: str
) -> None:
    stack.postgres.stop()
    show(stack, "expired.pem")
    stack.postgres.start()
    try:
        error = refusal(f"{url}?sslmode=verify-full&sslrootcert={TLS}/expired.pem")
        # The same certificate, unchecked: it was the date, and nothing else.
        assert ask(f"{url}?sslmode=require")[0]
    finally:
        stack.postgres.stop()
        show(stack, "valid.pem")
        stack.postgres.start()
    assert f"127.0.0.1:{stack.postgres.port}" in str(error)
    assert "sslrootcert" in str(error)


def test_the_pooler_too_is_reached_over_tls_and_left_when_it_proves_nothing(
    stack: NativeStack, url: str
) -> None:
    for options, route, told in (
        (f"sslmode=verify-full&sslrootcert={TLS}/valid.pem", Route.POOLER, "None"),
        ("sslmode=disable", Route.DIRECT, "SSL required"),
        (f"sslmode=verify-full&sslrootcert={TLS}/expired.pem", Route.DIRECT, "certificate"),
    ):
        _, (served, trouble) = ask(url, f"{stack.pooler_url}?{options}")
        assert served is route
        assert told in str(trouble)


def test_a_server_process_that_dies_under_tls_is_a_lost_connection_and_no_bad_certificate(
    url: str,
) -> None:
    """What libpq says then begins with "SSL error", as a bad certificate does.

    Seen to fail: it was a DatabaseError, not retryable, which told to check sslrootcert.
    """
    settings = Settings(database_url=f"{url}?sslmode=require")
    engine = postgres.open_engine(settings, pooled=False)
    with pytest.raises(DatabaseUnavailable) as caught, postgres.transaction(engine) as connection:
        threading.Timer(0.3, os.kill, (backend(connection), 9)).start()
        connection.execute(text("SELECT pg_sleep(20)"))
    assert "sslrootcert" not in str(caught.value)


def test_a_commit_that_is_cut_off_under_tls_is_in_doubt(url: str) -> None:
    """The same words during a COMMIT, which a trigger holds up.

    Seen to fail: it was a DatabaseError, of which the transaction's end is known.
    """
    settings = Settings(database_url=f"{url}?sslmode=require")
    engine = postgres.open_engine(settings, pooled=False)
    with postgres.transaction(engine) as connection:
        for statement in SLOW_COMMIT:
            connection.execute(text(statement))
    with pytest.raises(CommitUnknown), postgres.transaction(engine) as connection:
        connection.execute(text("INSERT INTO slow VALUES (1)"))
        threading.Timer(0.3, os.kill, (backend(connection), 9)).start()


SLOW_COMMIT = (
    "CREATE TABLE slow (x int)",
    "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN PERFORM pg_sleep(20); RETURN NULL; END'",
    "CREATE CONSTRAINT TRIGGER slowly AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION slowly()",
)


def backend(connection: object) -> int:
    return connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
