"""The documented way to roles, on the deployment: a superuser's psql, and logins with passwords."""

import os
import subprocess
import sys
from datetime import UTC, datetime

import attrs
import pytest
from servers.stack import NativeStack
from sqlalchemy import make_url, text

from telegram_hybrid import Hybrid, Outcome, connect
from telegram_hybrid.connect.postgres import Route, route
from telegram_hybrid.errors import DatabaseError
from telegram_hybrid.testing import make_message

pytestmark = pytest.mark.integration

SCHEMA = "with_roles"


def test_a_writers_login_works_through_the_pooler_and_makes_its_partitions(
    stack: NativeStack,
) -> None:
    # Seen to fail: without the line for their members in pg_hba.conf, nobody gets in.
    stack.start(stack.postgres, stack.pgbouncer)
    settings = attrs.evolve(stack.settings, database_schema=SCHEMA, redis_url=None, broker_url=None)
    with connect(settings) as owner:
        owner.migrate()
        words = [sys.executable, "-m", "telegram_hybrid", "roles", "create", "--sql-only"]
        script = subprocess.run(
            words,
            env={
                **os.environ,
                "TELEGRAM_DB_SCHEMA": SCHEMA,
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for kind in ("writer", "reader"):
            script += f"CREATE ROLE one_{kind} LOGIN PASSWORD 'secret' IN ROLE telegram_{kind};\n"
        stack.postgres.psql("-c", script, database="telegram")

        def login(kind: str, url: str | None) -> str:
            one = make_url(url or "").set(username=f"one_{kind}", password="secret")
            return one.render_as_string(hide_password=False)

        def log_in(kind: str, database: str, pooler: str | None) -> Hybrid:
            return connect(
                attrs.evolve(
                    settings,
                    database_url=login(kind, database),
                    pooler_url=pooler and login(kind, pooler),
                )
            )

        pooler = settings.pooler_url
        assert pooler is not None
        with log_in("writer", settings.database_url, pooler) as writer:
            old = make_message(message_id=1, sent_at=datetime(1999, 1, 5, tzinfo=UTC))
            assert writer.messages.save(old).outcome is Outcome.INSERTED
            assert route(writer.engine)[0] is Route.POOLER
            with pytest.raises(DatabaseError, match="must be owner"):
                writer.destroy()
        # Where the pooler is all there is, partitions are made through it.
        with log_in("writer", pooler, None) as writer:
            older = make_message(message_id=2, sent_at=datetime(1998, 1, 5, tzinfo=UTC))
            assert writer.messages.save(older).outcome is Outcome.INSERTED
        with log_in("reader", settings.database_url, pooler) as reader:
            assert reader.messages.latest(old.channel_id) == [older, old]
            with pytest.raises(DatabaseError, match="permission denied"):
                reader.messages.save(make_message(message_id=3))
        # The application's own login goes on, as a member of the owner.
        assert owner.messages.save(make_message(message_id=4)).outcome is Outcome.INSERTED
        with owner.engine.connect() as connection:
            assert connection.execute(text("SELECT current_user")).scalar_one() == "telegram"
        owner.destroy()
