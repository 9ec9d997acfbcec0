"""One suite on every kind of PostgreSQL: what a conftest takes from here, its tests run on all.

The embedded PostgreSQL 18, the system's own (15 on Debian 12), and a server with TimescaleDB, whose
URL is TELEGRAM_HYBRID_TEST_TIMESCALE_URL. A test that is about processes and not about SQL says so
with the marker `one_server`, and runs on the first alone; a long one with `one_plain_server`, and
runs on the first and on TimescaleDB.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import attrs
import pytest

from servers.postgres import binaries
from telegram_hybrid import Settings
from telegram_hybrid.embedded import Servers
from telegram_hybrid.embedded.binaries import PG_BINDIR

TIMESCALE_URL = "TELEGRAM_HYBRID_TEST_TIMESCALE_URL"
KINDS = ("embedded", "plain", "timescale")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A hook, for a conftest: every test with a database, once for each kind of server."""
    if "telegram_servers" in metafunc.fixturenames:
        marked = metafunc.definition.get_closest_marker
        kinds = KINDS[:1] if marked("one_server") else KINDS
        if marked("one_plain_server"):
            kinds = ("embedded", "timescale")
        metafunc.parametrize("telegram_servers", kinds, indirect=True, scope="session")


@pytest.fixture(scope="session")
def telegram_servers(request: pytest.FixtureRequest, telegram_servers: Settings) -> Settings:
    """The session's servers, with a PostgreSQL of the kind that the test is run for."""
    kind = request.param
    if kind == "embedded":
        return telegram_servers
    if kind == "plain":
        url = request.getfixturevalue("plain_postgres_url")
    elif not (url := os.environ.get(TIMESCALE_URL, "")):
        pytest.skip(f"{TIMESCALE_URL} is not set")
    return attrs.evolve(telegram_servers, database_url=url)


@pytest.fixture(scope="session")
def plain_postgres_url() -> Iterator[str]:
    """The system's own PostgreSQL, started as the embedded one is, once a session."""
    programs = binaries()
    if programs is None:
        pytest.skip("no PostgreSQL of the system's: install postgresql")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(PG_BINDIR, str(programs))
        servers = Servers().start()
    with servers:
        yield servers.database_url
