"""Between any two revisions, up or down, the data stays; a revision that fails changes nothing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from telegram_hybrid import Channel, Hybrid, Outcome, Status
from telegram_hybrid.schema.postgres import migrate
from telegram_hybrid.testing import make_messages

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

#: Gone below the revision that brought them, and not made again from what stayed.
LOST = {
    "relays": "those who live say so again within seconds",
    "owed_invalidations": "the library of before pays none",
    "message_changes": "the library before has no log, and one that is begun anew says so",
    "message_change_floors": "after the upgrade all there is counts as forgotten",
    "channel_migrations": "the library of before has no place for them: record them again",
    "message_claims": "what was claimed waits for anybody again",
    "legacy_batches": "what was brought can no longer be rolled back",
    "legacy_channels": "the same",
    "channel_heads.changed_at": "the time of the upgrade: later is the safe side",
    "message_confirmations": "the library of before knows none",
    "message_revisions.reason": "the library of before knows none",
    "messages.status_reason": "the library of before knows none",
    "messages.deleted_from": "an undo then goes by the times that the statuses left",
}

#: All that is not rows, as PostgreSQL itself spells it.
SHAPE = """
SELECT 'column', c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
       || ' ' || a.attnotnull || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = CAST(:schema AS regnamespace) AND c.relkind IN ('r', 'p', 'v', 'm')
  AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'constraint', r.conname || ' ' || pg_get_constraintdef(r.oid)
FROM pg_constraint r JOIN pg_class c ON c.oid = r.conrelid
WHERE r.connamespace = CAST(:schema AS regnamespace) AND NOT c.relispartition
UNION ALL
SELECT 'index', pg_get_indexdef(i.oid)
FROM pg_class i JOIN pg_index x ON x.indexrelid = i.oid JOIN pg_class c ON c.oid = x.indrelid
WHERE i.relnamespace = CAST(:schema AS regnamespace) AND NOT c.relispartition
UNION ALL
SELECT 'storage', relname || coalesce(reloptions::text, '')
FROM pg_class WHERE relnamespace = CAST(:schema AS regnamespace) AND relkind IN ('r', 'p')
  AND NOT relispartition
UNION ALL
SELECT 'view', relname || pg_get_viewdef(oid)
FROM pg_class WHERE relnamespace = CAST(:schema AS regnamespace) AND relkind IN ('v', 'm')
UNION ALL
SELECT 'trigger', pg_get_triggerdef(t.oid)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = CAST(:schema AS regnamespace) AND NOT c.relispartition
  AND NOT t.tgisinternal
UNION ALL
SELECT 'function', pg_get_functiondef(oid)
FROM pg_proc WHERE pronamespace = CAST(:schema AS regnamespace) AND prokind IN ('f', 'p')
"""

#: A number that TimescaleDB gives anew to what was made again.
TIMESCALES = re.compile(r"(?<=_materialized_hypertable_)\d+|(?<=cagg_watermark\()\d+")

#: Of each table its rows, each as JSON.
Rows = dict[str, list[dict[str, Any]]]


def revisions() -> list[str]:
    """All there are, oldest first."""
    config = Config()
    config.set_main_option("script_location", "telegram_hybrid.schema.postgres:migrations")
    found = ScriptDirectory.from_config(config).walk_revisions()
    return [each.revision for each in reversed([*found])]


@attrs.frozen
class Store:
    """The test's schema, and the moves between its revisions, each in one transaction."""

    connection: Connection
    schema: str

    def move(self, to: str) -> None:
        now = migrate.status(self.connection, schema=self.schema).current or ""
        self.connection.rollback()
        step = migrate.upgrade if now < to else migrate.downgrade
        assert step(self.connection, schema=self.schema, to=to).current == to
        self.connection.rollback()

    def rows(self) -> Rows:
        tables = self._read(
            "SELECT relname FROM pg_class WHERE relnamespace = CAST(:schema AS regnamespace)"
            " AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'alembic_version'"
        )
        return {
            table: sorted(
                (row for (row,) in self._read(f"SELECT to_jsonb(t) FROM {{s}}.{table} AS t")),
                key=json.dumps,
            )
            for (table,) in tables
        }

    def numbers(self) -> dict[str, int]:
        """How far each sequence is: what it gave once it must not give again."""
        found = self._read(
            "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = :schema"
        )
        return {name: last for name, last in found if last is not None}

    def shape(self) -> set[str]:
        found = self._read(SHAPE)
        return {
            f"{kind} {TIMESCALES.sub('N', what.replace(self.schema, '{s}'))}"
            for kind, what in found
        }

    def _read(self, statement: str) -> list[Any]:
        asked = text(statement.replace("{s}", self.schema))
        found = self.connection.execute(asked, {"schema": self.schema}).all()
        self.connection.rollback()
        return list(found)


@pytest.fixture
def store(hybrid: Hybrid) -> Iterator[Store]:
    """A store of the newest revision with rows in every table, such as every revision can hold."""
    messages = make_messages(4)
    hybrid.channels.register(Channel(channel_id=messages[0].channel_id, title="Сигналы"))
    hybrid.messages.save_many(messages)
    hybrid.messages.save_many(_edited(messages[:2]))
    hybrid.messages.save(attrs.evolve(messages[3], edited_at=messages[3].sent_at))
    hybrid.messages.mark(*messages[1].key, Status.QUEUED)
    hybrid.messages.delete(*messages[2].key, reason="spam")
    hybrid.channels.record_migration(-414_003, messages[0].channel_id)
    schema = hybrid.settings.database_schema
    event = "event_id, type, channel_id, message_id"
    with hybrid.engine.connect() as connection:
        for statement in (
            "INSERT INTO {s}.inbox (queue, event_id, channel_id, message_id)"
            " SELECT 'signals', event_id, channel_id, message_id FROM {s}.outbox",
            f"INSERT INTO {{s}}.dead_letters ({event}, payload, sequence, attempts, reason)"
            f" SELECT {event}, payload, id, 1, 'no' FROM {{s}}.outbox LIMIT 1",
            "UPDATE {s}.relay_shards SET owner = 'a', expires_at = now(), epoch = 7, floor = 0"
            " WHERE shard = 3",
            "INSERT INTO {s}.relays VALUES ('a', now())",
            "INSERT INTO {s}.owed_invalidations VALUES (-1001, now())",
            "INSERT INTO {s}.message_change_floors VALUES (-1001, 0)",
            "INSERT INTO {s}.message_claims (channel_id, message_id, claim_id, worker, expires_at)"
            " VALUES (-1001, 1, 1, 'a', now())",
            "INSERT INTO {s}.legacy_batches"
            " VALUES ('old', -1001, -1, 9, 1, 1, 1, 0, '{}', 5, 5, 5)",
            "INSERT INTO {s}.legacy_channels VALUES ('old', -1001, now())",
        ):
            connection.execute(text(statement.replace("{s}", schema)))
        connection.commit()
        ready = Store(connection, schema)
        empty = {table for table, rows in ready.rows().items() if not rows}
        assert not empty, f"give these tables rows, too, in this fixture: {empty}"
        yield ready
        ready.move(revisions()[-1])


def _edited(messages: list[Any]) -> list[Any]:
    return [attrs.evolve(each, text="again", edited_at=each.sent_at) for each in messages]


def projected(rows: Rows, onto: Rows) -> Rows:
    """What both have: of `rows` those tables and columns that `onto` has as well."""
    return {
        table: sorted(
            (
                {name: value for name, value in row.items() if name in onto[table][0]}
                for row in found
            ),
            key=json.dumps,
        )
        for table, found in rows.items()
        if onto.get(table)
    }


def kept(rows: Rows) -> Rows:
    """What must come back: all but what is lost on purpose."""
    return {
        table: sorted(
            (
                {name: value for name, value in row.items() if f"{table}.{name}" not in LOST}
                for row in found
            ),
            key=json.dumps,
        )
        for table, found in rows.items()
        if table not in LOST
    }


def check_round_trip(store: Store, start: str, turn: str) -> None:
    """From `start` to `turn` and back."""
    numbers, before = store.numbers(), store.rows()
    store.move(turn)
    there = store.rows()
    assert projected(before, there) == projected(there, before), f"{start} to {turn}"
    emptied = {table for table in there if before.get(table) and not there[table]}
    assert not emptied, f"{start} to {turn}: nothing is left of {emptied}"
    store.move(start)
    after = store.rows()
    assert projected(there, after) == projected(after, there), f"{turn} to {start}"
    assert kept(before) == kept(after), f"{start} to {turn} and back"
    assert numbers == store.numbers(), f"{start} to {turn} and back"


def test_the_data_stays_through_any_revision_and_back(store: Store) -> None:
    # Broken on purpose: 0002 without the rows that it fills channel_heads with; 0006 with a
    # downgrade that deletes a row which the library before could read.
    newest = revisions()[-1]
    for turn in reversed(revisions()[:-1]):
        check_round_trip(store, newest, turn)


@pytest.mark.long
def test_the_data_stays_between_any_two_revisions(store: Store) -> None:
    for start in reversed(revisions()):
        store.move(start)
        for turn in revisions():
            if turn != start:
                check_round_trip(store, start, turn)


def test_a_store_that_went_down_is_as_one_that_came_up(store: Store, hybrid: Hybrid) -> None:
    # Broken on purpose: 0013 with a downgrade that leaves its function. (It found that of 0010,
    # which left the search paths that it had set.)
    down = {}
    for revision in reversed(revisions()):
        store.move(revision)
        down[revision] = store.shape()
    hybrid.destroy()
    for revision in revisions():
        store.move(revision)
        assert store.shape() == down[revision], revision


def test_a_store_that_went_down_and_up_goes_on(store: Store, hybrid: Hybrid) -> None:
    known = list(hybrid.messages.latest(make_messages(1)[0].channel_id))
    assert len(known) == 3
    store.move(revisions()[0])
    store.move(revisions()[-1])
    fresh = make_messages(5)[4]
    assert {hybrid.messages.save(each).outcome for each in known} == {Outcome.DUPLICATE}
    assert hybrid.messages.save(fresh).outcome is Outcome.INSERTED
    assert hybrid.messages.save(fresh).version > max(each.version for each in known)


@pytest.mark.parametrize("direction", ["upgrade", "downgrade"])
def test_a_revision_that_fails_halfway_leaves_everything_as_it_was(
    store: Store, direction: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Broken on purpose: a COMMIT in the planted revision before it fails.
    newest = revisions()[-1]
    scripts = tmp_path / "migrations"
    shutil.copytree(Path(migrate.__file__).with_name("migrations"), scripts)
    fails = """
    op.execute("UPDATE messages SET text = 'lost'")
    op.execute("ALTER TABLE outbox DROP COLUMN payload")
    op.execute("CREATE TABLE half (id int)")
    op.execute("SELECT 1/0")
"""
    up, down = (fails, "    pass\n") if direction == "upgrade" else ("    pass\n", fails)
    (scripts / "versions" / "r9999_planted.py").write_text(
        f"from alembic import op\nrevision, down_revision = '9999', '{newest}'\n"
        f"branch_labels = depends_on = None\ndef upgrade():\n{up}\ndef downgrade():\n{down}"
    )
    real = migrate._config

    def planted(connection: Connection, schema: str) -> Config:
        config = real(connection, schema)
        config.set_main_option("script_location", str(scripts))
        return config

    monkeypatch.setattr(migrate, "_config", planted)
    start, to = ("0001", "9999") if direction == "upgrade" else ("9999", "0001")
    store.move(start)
    before, shape = store.rows(), store.shape()
    step = migrate.upgrade if direction == "upgrade" else migrate.downgrade
    with pytest.raises(Exception, match="division by zero"):
        step(store.connection, schema=store.schema, to=to)
    store.connection.rollback()
    assert migrate.status(store.connection, schema=store.schema).current == start
    assert (store.rows(), store.shape()) == (before, shape)
    if direction == "downgrade":
        with store.connection.begin():
            store.connection.execute(
                text(f"UPDATE {store.schema}.alembic_version SET version_num = '{newest}'")
            )
