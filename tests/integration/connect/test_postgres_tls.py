"""PostgreSQL's own TLS and PgBouncer's: what is proven to whom, and what a lost connection is."""

import os
import shutil
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.daemon import unprivileged
from servers.pgbouncer import PgBouncer
from servers.postgres import Postgres
from sqlalchemy import text

from telegram_hybrid.connect import postgres
from telegram_hybrid.connect.postgres.routes import Route
from telegram_hybrid.embedded.binaries import PG_BINDIR
from telegram_hybrid.errors import CommitUnknown, DatabaseError, DatabaseUnavailable
from telegram_hybrid.settings import Settings

# One worker of xdist: its servers serve every test here.
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("postgres-tls")]

TLS = Path(__file__).parents[2] / "servers/tls"
ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


class TlsPostgres(Postgres):
    """With one of the certificates of servers/tls; the wheel's PostgreSQL is built without TLS."""

    certificate = "valid.pem"

    def _prepare(self) -> None:
        self.show(self.certificate)
        super()._prepare()

    def show(self, certificate: str) -> None:
        """Take this certificate, from the next start on."""
        own(TLS / certificate, self.folder / "cert.pem")
        own(TLS / "key.pem", self.folder / "key.pem")

    def command(self) -> list[str]:
        files = {"ssl_cert_file": "cert.pem", "ssl_key_file": "key.pem"}
        options = [f"{name}={self.folder / file}" for name, file in files.items()]
        more = [word for each in ("ssl=on", *options) for word in ("-c", each)]
        return [*super().command(), *more]


def own(source: Path, target: Path) -> None:
    """Copy a file for the servers' user alone."""
    shutil.copyfile(source, target)
    target.chmod(0o600)
    if account := unprivileged():
        os.chown(target, account.pw_uid, account.pw_gid)


@pytest.fixture(scope="module")
def server() -> Iterator[TlsPostgres]:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not installed:
        pytest.skip("postgresql is not installed (apt-get install postgresql)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PG_BINDIR, str(installed[-1].parent))
        running = TlsPostgres()
    try:
        yield running
    finally:
        running.delete()


@pytest.fixture
def pgbouncer(server: TlsPostgres) -> Iterator[PgBouncer]:
    """A pooler that insists on TLS."""
    if missing := PgBouncer.available():
        pytest.skip(missing)
    pooler = PgBouncer(server)
    own(TLS / "valid.pem", pooler.folder / "cert.pem")
    own(TLS / "key.pem", pooler.folder / "key.pem")
    pooler.configure(
        server_port=server.port,
        client_tls_sslmode="require",
        client_tls_cert_file=str(pooler.folder / "cert.pem"),
        client_tls_key_file=str(pooler.folder / "key.pem"),
    )
    try:
        pooler.start()
        yield pooler
    finally:
        pooler.delete()


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
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
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
def test_each_mode_is_passed_on_to_the_driver(
    server: TlsPostgres, options: str, encrypted: bool
) -> None:
    url = server.url.replace("127.0.0.1", "db.example") if "hostaddr" in options else server.url
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
    server: TlsPostgres, options: str, told: str
) -> None:
    host = "db.example" if "hostaddr" in options else "127.0.0.1"
    error = refusal(f"{server.url.replace('127.0.0.1', host)}?{options}")
    assert f"PostgreSQL at {host}:{server.port}/telegram" in str(error)
    assert told in str(error)
    assert "sslrootcert in TELEGRAM_DATABASE_URL" in str(error)


def test_an_expired_certificate_is_refused_by_host_and_setting(server: TlsPostgres) -> None:
    server.stop()
    server.show("expired.pem")
    server.start()
    try:
        error = refusal(f"{server.url}?sslmode=verify-full&sslrootcert={TLS}/expired.pem")
        # The same certificate, unchecked: it was the date, and nothing else.
        assert ask(f"{server.url}?sslmode=require")[0]
    finally:
        server.stop()
        server.show("valid.pem")
        server.start()
    assert f"127.0.0.1:{server.port}" in str(error)
    assert "sslrootcert" in str(error)


def test_the_pooler_too_is_reached_over_tls_and_left_when_it_proves_nothing(
    server: TlsPostgres, pgbouncer: PgBouncer
) -> None:
    for options, route, told in (
        (f"sslmode=verify-full&sslrootcert={TLS}/valid.pem", Route.POOLER, "None"),
        ("sslmode=disable", Route.DIRECT, "SSL required"),
        (f"sslmode=verify-full&sslrootcert={TLS}/expired.pem", Route.DIRECT, "certificate"),
    ):
        _, (served, trouble) = ask(server.url, f"{pgbouncer.url}?{options}")
        assert served is route
        assert told in str(trouble)


def test_a_server_process_that_dies_under_tls_is_a_lost_connection_and_no_bad_certificate(
    server: TlsPostgres,
) -> None:
    """What libpq says then begins with "SSL error", as a bad certificate does.

    Seen to fail: it was a DatabaseError, not retryable, which told to check sslrootcert.
    """
    settings = Settings(database_url=f"{server.url}?sslmode=require")
    engine = postgres.open_engine(settings, pooled=False)
    with pytest.raises(DatabaseUnavailable) as caught, postgres.transaction(engine) as connection:
        threading.Timer(0.3, os.kill, (backend(connection), 9)).start()
        connection.execute(text("SELECT pg_sleep(20)"))
    assert "sslrootcert" not in str(caught.value)


def test_a_commit_that_is_cut_off_under_tls_is_in_doubt(server: TlsPostgres) -> None:
    """The same words during a COMMIT, which a trigger holds up.

    Seen to fail: it was a DatabaseError, of which the transaction's end is known.
    """
    settings = Settings(database_url=f"{server.url}?sslmode=require")
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
