"""A server whose messages are German: nothing is decided by words that it does not say."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.postgres import Postgres
from sqlalchemy import text

from telegram_hybrid import connect
from telegram_hybrid.connect import postgres
from telegram_hybrid.embedded.binaries import PG_BINDIR
from telegram_hybrid.errors import DatabaseError, DatabaseUnavailable, SchemaMismatch, WriteConflict
from telegram_hybrid.settings import Settings
from telegram_hybrid.testing import make_message

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("postgres-language")]


class German(Postgres):
    """gettext asks LANGUAGE wherever the locale is not plain C."""

    def command(self) -> list[str]:
        locale = ["env", "-u", "LC_ALL", "LANG=C.UTF-8", "LANGUAGE=de"]
        return [*locale, *super().command(), "-c", "lc_messages=C.UTF-8"]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not installed:
        pytest.skip("postgresql is not installed (apt-get install postgresql)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PG_BINDIR, str(installed[-1].parent))
        running = German()
    try:
        yield running
    finally:
        running.delete()


def run(url: str, *statements: str) -> None:
    engine = postgres.open_engine(Settings(database_url=url, connect_timeout=1.0), pooled=False)
    with postgres.transaction(engine) as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_a_refused_login_in_another_language_still_names_host_and_setting(server: Postgres) -> None:
    # Seen to fail: "FATAL:  Passwort-Authentifizierung ... fehlgeschlagen", and no setting.
    for url in (server.url.replace("hunter2", "hunter3"), server.url + "x"):
        with pytest.raises(DatabaseUnavailable) as caught:
            run(url)
        assert f"127.0.0.1:{server.port}/telegram" in str(caught.value)
        assert "FATAL" in str(caught.value)
        assert "TELEGRAM_DB_PASSWORD" in str(caught.value)
        assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    ("statement", "kind", "told"),
    [
        ("SELECT * FROM nowhere", SchemaMismatch, "existiert nicht"),
        ("SELECT 1/0", DatabaseError, "Division durch Null"),
        ("DO $$ BEGIN RAISE serialization_failure; END $$", WriteConflict, "serialization"),
    ],
)
def test_what_a_statement_met_is_known_by_its_code(
    server: Postgres, statement: str, kind: type[DatabaseError], told: str
) -> None:
    with pytest.raises(kind, match=told):
        run(server.url, statement)


def test_migrations_partitions_and_writes_need_no_english(server: Postgres) -> None:
    # A month without a partition is known by an error's code and shape, too.
    with connect(Settings(database_url=server.url)) as hybrid:
        hybrid.migrate()
        message = make_message()
        assert hybrid.messages.save(message).outcome == "inserted"
        assert hybrid.messages.get(*message.key) == message
