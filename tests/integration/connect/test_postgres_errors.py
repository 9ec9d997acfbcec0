"""Opening the database: what is wrong is named with host and setting, never with the secret."""

import datetime
import re
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import pytest
import trustme
from servers.daemon import Daemon
from servers.stack import NativeStack, read_env
from sqlalchemy import text

from telegram_hybrid import health
from telegram_hybrid.connect import postgres
from telegram_hybrid.connect.postgres.routes import Route
from telegram_hybrid.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailable,
    HybridError,
)
from telegram_hybrid.settings import Settings

# One worker of xdist: its servers serve every test here.
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("postgres-errors")]

PGBOUNCER_INI = "pgbouncer/pgbouncer.ini"
USERLIST = "pgbouncer/userlist.txt"


@pytest.fixture(scope="module")
def stack() -> Iterator[NativeStack]:
    """As deployed, but the server lets the application ask for another database."""
    if missing := NativeStack.missing():
        pytest.skip(missing)
    with NativeStack() as servers:
        servers.add("postgres/pg_hba.conf", "host telegramx telegram samenet scram-sha-256")
        servers.start(servers.postgres)
        yield servers


@pytest.fixture
def pgbouncer(stack: NativeStack) -> Iterator[Daemon]:
    """Running, and as deployed again after the test."""
    written = (stack.folder / PGBOUNCER_INI).read_text()
    users = (stack.folder / USERLIST).read_text()
    stack.start(stack.pgbouncer)
    yield stack.pgbouncer
    stack.pgbouncer.stop()
    (stack.folder / PGBOUNCER_INI).write_text(written)
    (stack.folder / USERLIST).write_text(users)


def ask(settings: Settings) -> tuple[Route, str | None]:
    """Ask for one answer; return which way it came, and why not through the pooler."""
    engine = postgres.open_engine(settings, pooled=False)
    try:
        with postgres.transaction(engine) as connection:
            connection.execute(text("SELECT 1"))
        return postgres.route(engine)
    finally:
        engine.dispose()


def refusal(url: str, pooler_url: str | None = None) -> HybridError:
    with pytest.raises(HybridError) as caught:
        ask(Settings(database_url=url, pooler_url=pooler_url, connect_timeout=2.0))
    # Broken on purpose: with the URL in `_place` instead of host and port, this finds the password.
    told = "".join(traceback.format_exception(caught.value))
    for secret in ("hunter", *re.findall(r":([0-9a-f]{48})@", url)):
        assert secret not in told
    return caught.value


def password(stack: NativeStack) -> str:
    return stack.env["TELEGRAM_DB_PASSWORD"]


def test_a_wrong_password_names_host_and_setting_and_is_not_tried_again(stack: NativeStack):
    began = time.monotonic()
    error = refusal(stack.settings.database_url.replace(password(stack), "hunter3"))
    assert time.monotonic() - began < 1.5
    assert not isinstance(error, DatabaseUnavailable)
    assert f"PostgreSQL at 127.0.0.1:{stack.postgres.port}/telegram" in str(error)
    assert "password authentication failed" in str(error)
    assert "TELEGRAM_DB_PASSWORD" in str(error)


def test_a_database_that_is_not_there_names_host_and_setting(stack: NativeStack):
    error = refusal(stack.settings.database_url + "x")
    assert f"127.0.0.1:{stack.postgres.port}/telegramx" in str(error)
    assert "TELEGRAM_DB_NAME" in str(error)


def test_a_host_without_an_address_is_named_and_may_be_tried_again():
    error = refusal("postgresql://ann:hunter2@db.invalid:5434/telegram")
    assert isinstance(error, DatabaseUnavailable)
    assert "db.invalid:5434" in str(error)
    assert "TELEGRAM_DB_HOST" in str(error)


@pytest.mark.parametrize("query", ["sslmode=frob", "colour=hunter"])
def test_an_option_that_libpq_does_not_know_names_the_setting(stack: NativeStack, query: str):
    error = refusal(f"{stack.settings.database_url}?{query}")
    assert "TELEGRAM_DATABASE_URL" in str(error)


@pytest.mark.parametrize("setting", ["database_url", "pooler_url"])
def test_a_malformed_url_names_the_setting(setting: str):
    with pytest.raises(ConfigurationError) as caught:
        settings = {"database_url": "postgresql://db", setting: "postgresql://a:hunter2@db:x/y"}
        postgres.open_engine(Settings(**settings))
    assert setting in str(caught.value) or "TELEGRAM_" in str(caught.value)
    assert "hunter" not in "".join(traceback.format_exception(caught.value))


def test_an_expired_certificate_names_host_and_setting(stack: NativeStack, pgbouncer: Daemon):
    authority = trustme.CA()
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = authority.issue_cert("127.0.0.1", not_before=past, not_after=past.replace(day=2))
    root, chain, key = (stack.folder / f"pgbouncer/{n}.pem" for n in ("root", "chain", "key"))
    authority.cert_pem.write_to_path(str(root))
    certificate.cert_chain_pems[0].write_to_path(str(chain))
    certificate.private_key_pem.write_to_path(str(key))
    pgbouncer.stop()
    stack.add(
        PGBOUNCER_INI,
        "client_tls_sslmode = require",
        f"client_tls_cert_file = {chain}",
        f"client_tls_key_file = {key}",
    )
    pgbouncer.start()
    secure = f"sslmode=verify-full&sslrootcert={root}"
    error = refusal(f"{stack.pooler_url}?{secure}")
    assert not isinstance(error, DatabaseUnavailable)
    assert f"127.0.0.1:{stack.ports['pgbouncer']}" in str(error)
    assert "certificate" in str(error)
    assert "sslrootcert" in str(error)
    # The same certificate, unchecked: it was the date, and nothing else.
    assert ask(Settings(database_url=f"{stack.pooler_url}?sslmode=require"))[0] is Route.DIRECT


@pytest.mark.parametrize(
    ("change", "told"),
    [
        # No such database, a password that is not PostgreSQL's, a wrong one of its own.
        ((PGBOUNCER_INI, "telegram = host", "another = host"), "authentication failed"),
        ((USERLIST, '"pgbouncer"', '"telegram" "wrong"\n"pgbouncer"'), "authentication failed"),
        ((USERLIST, '"pgbouncer" "', '"pgbouncer" "x'), "timeout expired"),
    ],
)
def test_a_pooler_s_own_errors_send_us_past_it_and_are_told(
    stack: NativeStack, pgbouncer: Daemon, change: tuple[str, str, str], told: str
):
    pgbouncer.stop()
    stack.replace(*change)
    pgbouncer.start()
    route, trouble = ask(stack.settings)
    assert route is Route.DIRECT
    assert told in str(trouble)


def test_a_pooler_that_cannot_reach_its_server_is_passed_by(stack: NativeStack, pgbouncer: Daemon):
    pgbouncer.stop()
    stack.replace(PGBOUNCER_INI, f"port={stack.postgres.port}", "port=1")  # where nobody listens
    stack.add(PGBOUNCER_INI, "query_wait_timeout = 1")
    pgbouncer.start()
    route, trouble = ask(stack.settings)
    assert route is Route.DIRECT
    assert trouble


def test_a_pooler_that_greets_and_then_passes_nothing_on_is_passed_by(
    stack: NativeStack, pgbouncer: Daemon
):
    # Broken on purpose: without _prove in Router._open the greeting is taken for service.
    # With the verifier in its file; when it has to ask for it, a login hangs with all else.
    verifier = "SELECT rolpassword FROM pg_authid WHERE rolname = 'telegram'"
    pgbouncer.stop()
    stack.add(PGBOUNCER_INI, "admin_users = pgbouncer")
    stack.add(USERLIST, f'"telegram" "{stack.postgres.psql("-c", verifier)}"')
    pgbouncer.start()
    settings = attrs.evolve(stack.settings, statement_timeout=10.0)
    assert ask(settings) == (Route.POOLER, None)
    admin = {
        "dbname": "pgbouncer",
        "user": "pgbouncer",
        "password": read_env(stack.folder / "secrets.env")["POOLER_PASSWORD"],
    }
    with stack.connect(conninfo=stack.pooler_url, **admin) as console:
        console.execute("PAUSE telegram")
        route, trouble = ask(settings)
    assert route is Route.DIRECT
    assert "takes the login, but gives no answer" in str(trouble)


@contextmanager
def mute_port() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield listening.getsockname()[1]


def test_a_mute_pooler_costs_a_new_connection_three_seconds_and_the_next_nothing(
    stack: NativeStack,
):
    with mute_port() as port:
        pooler = stack.pooler_url.replace(str(stack.ports["pgbouncer"]), str(port))
        settings = attrs.evolve(stack.settings, pooler_url=pooler)
        engine = postgres.open_engine(settings, pooled=False)
        took = []
        for _ in range(3):
            began = time.monotonic()
            with postgres.transaction(engine) as connection:
                connection.execute(text("SELECT 1"))
            took.append(time.monotonic() - began)
    print(f"\nmute pooler: {', '.join(f'{seconds:.2f}' for seconds in took)} s")
    assert took[0] < 4.5
    assert max(took[1:]) < 1.0


def test_with_both_ways_gone_the_error_names_both_and_comes_within_the_deadline(stack: NativeStack):
    began = time.monotonic()
    error = refusal("postgresql://ann:hunter2@127.0.0.1:1/x", "postgresql://ann@127.0.0.1:2/x")
    assert time.monotonic() - began < 3.5
    assert isinstance(error, DatabaseUnavailable)
    assert "127.0.0.1:1/x" in str(error)
    assert "127.0.0.1:2/x" in str(error)


def test_a_statement_that_takes_too_long_is_cancelled_on_the_server(
    stack: NativeStack, pgbouncer: Daemon
):
    # Broken on purpose: without cancel_safe the wait ends later, and by closing the connection.
    settings = attrs.evolve(stack.settings, statement_timeout=1.0)
    engine = postgres.open_engine(settings, pooled=False)
    began = time.monotonic()
    with (
        pytest.raises(DatabaseUnavailable, match="statement_timeout"),
        postgres.transaction(engine) as connection,
    ):
        connection.execute(text("SELECT pg_sleep(20)"))
    assert time.monotonic() - began < 3.0
    time.sleep(0.2)
    sleeping = "state = 'active' AND query ~ 'sleep.20' AND pid <> pg_backend_pid()"
    count = f"SELECT count(*) FROM pg_stat_activity WHERE {sleeping}"
    assert stack.postgres.psql("-c", count) == "0"


def test_health_tells_which_way_serves_and_why(stack: NativeStack, pgbouncer: Daemon):
    settings = attrs.evolve(stack.settings, redis_url=None, broker_url=None)
    assert health.check(settings)["postgresql"].via == "pooler"
    pgbouncer.kill()
    found = health.check(settings)
    assert found["postgresql"].via == "direct"
    assert "Connection refused" in found["pgbouncer"].why
    assert password(stack) not in str(found)


def test_migrations_go_past_the_pooler(stack: NativeStack):
    engine = postgres.open_engine(
        attrs.evolve(stack.settings, pooler_url="postgresql://127.0.0.1:1/x"),
        pooled=False,
        direct=True,
    )
    with postgres.transaction(engine) as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    assert postgres.route(engine) == (Route.DIRECT, None)


def test_a_password_that_is_missing_is_a_refusal(stack: NativeStack):
    error = refusal(stack.settings.database_url.replace(f":{password(stack)}", ""))
    assert isinstance(error, DatabaseError)
    assert not isinstance(error, DatabaseUnavailable)
    assert "TELEGRAM_DB_PASSWORD" in str(error)
