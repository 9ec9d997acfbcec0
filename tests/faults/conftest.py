"""A pooler in front of a PostgreSQL, both to be killed."""

from collections.abc import Iterator
from contextlib import closing

import attrs
import pytest
from servers.pgbouncer import PgBouncer
from servers.postgres import Postgres

from telegram_hybrid.settings import Settings


@attrs.frozen
class Pooled:
    """The two servers, and settings that know both."""

    postgres: Postgres
    pgbouncer: PgBouncer
    settings: Settings


@pytest.fixture(scope="session")
def tcp_postgres() -> Iterator[Postgres]:
    """A PostgreSQL on a TCP port; whoever stops it starts it again."""
    server = Postgres()
    try:
        yield server
    finally:
        server.delete()


@pytest.fixture
def pooled(tcp_postgres: Postgres) -> Iterator[Pooled]:
    """A running pooler of 20 server connections in front of a running, empty PostgreSQL."""
    if missing := PgBouncer.available():
        pytest.skip(missing)
    tcp_postgres.start()
    pgbouncer = PgBouncer(tcp_postgres)
    try:
        pgbouncer.start()
        settings = Settings(database_url=tcp_postgres.url, pooler_url=pgbouncer.url, pool_size=8)
        yield Pooled(tcp_postgres, pgbouncer, settings)
    finally:
        pgbouncer.delete()
        tcp_postgres.start()
        with closing(tcp_postgres.superuser()) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {settings.database_schema} CASCADE")
