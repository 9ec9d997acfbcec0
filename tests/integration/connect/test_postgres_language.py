"""A server whose messages are German: nothing is decided by words that it does not say."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from servers.stack import NativeStack
from sqlalchemy import text

from telegram_hybrid import connect
from telegram_hybrid.connect import postgres
from telegram_hybrid.errors import DatabaseError, DatabaseUnavailable, SchemaMismatch, WriteConflict
from telegram_hybrid.settings import Settings
from telegram_hybrid.testing import make_message

# One worker of xdist: its server serves every test here.
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("postgres-language")]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    if missing := NativeStack.missing():
        pytest.skip(missing)
    with NativeStack() as stack:
        # gettext asks LANGUAGE wherever the locale is not plain C.
        stack.postgres.environment.update(LC_ALL="", LANG="C.UTF-8", LANGUAGE="de")
        stack.add("postgres/postgresql.conf", "lc_messages = 'C.UTF-8'")
        stack.add("postgres/pg_hba.conf", "host telegramx telegram samenet scram-sha-256")
        stack.start(stack.postgres)
        yield stack.settings.database_url


def run(url: str, *statements: str) -> None:
    engine = postgres.open_engine(Settings(database_url=url, connect_timeout=1.0), pooled=False)
    with postgres.transaction(engine) as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_a_refused_login_in_another_language_still_names_host_and_setting(url: str) -> None:
    # Seen to fail: "FATAL:  Passwort-Authentifizierung ... fehlgeschlagen", and no setting.
    password = str(urlsplit(url).password)
    for wrong in (url.replace(password, "hunter3"), url + "x"):
        with pytest.raises(DatabaseUnavailable) as caught:
            run(wrong)
        assert f"127.0.0.1:{urlsplit(url).port}/telegram" in str(caught.value)
        assert "FATAL" in str(caught.value)
        assert "TELEGRAM_DB_PASSWORD" in str(caught.value)
        assert "hunter" not in str(caught.value)
        assert password not in str(caught.value)


@pytest.mark.parametrize(
    ("statement", "kind", "told"),
    [
        ("SELECT * FROM nowhere", SchemaMismatch, "existiert nicht"),
        ("SELECT 1/0", DatabaseError, "Division durch Null"),
        ("DO $$ BEGIN RAISE serialization_failure; END $$", WriteConflict, "serialization"),
    ],
)
def test_what_a_statement_met_is_known_by_its_code(
    url: str, statement: str, kind: type[DatabaseError], told: str
) -> None:
    with pytest.raises(kind, match=told):
        run(url, statement)


def test_migrations_partitions_and_writes_need_no_english(url: str) -> None:
    # A month without a partition is known by an error's code and shape, too.
    with connect(Settings(database_url=url)) as hybrid:
        hybrid.migrate()
        message = make_message()
        assert hybrid.messages.save(message).outcome == "inserted"
        assert hybrid.messages.get(*message.key) == message
