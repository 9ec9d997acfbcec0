"""From the original's tables into the store: numbers, merging, refusals, crashes, checksums."""

from __future__ import annotations

import threading
from typing import Any

import originals
import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from telegram_hybrid import (
    EventType,
    Hybrid,
    Outcome,
    RevisionReason,
    Settings,
    Status,
    connect,
    legacy,
)
from telegram_hybrid.errors import InvalidInput, LegacyRefused, SchemaMismatch
from telegram_hybrid.legacy import batching
from telegram_hybrid.legacy.source import open_source
from telegram_hybrid.testing import make_message

from .conftest import Dump, Original

pytestmark = [pytest.mark.integration, pytest.mark.one_server]

FIRST = originals.CHANNELS[0]


def test_copies_become_a_message_with_revisions(hybrid: Hybrid, original: Original) -> None:
    original.insert(message_id=7, text="BUY", status="published", published_at="2024-03-01 12:01Z")
    original.insert(
        message_id=7,
        text="BUY now",
        received_at="2024-03-01 15:00Z",
        created_at="2024-03-01 15:00Z",
        telegram_date="2024-03-01 11:59Z",
        metadata='{"processed_by": "g"}',
    )
    original.insert(
        message_id=8,
        status="published",
        deleted_at="2024-03-02Z",
        metadata='{"deletion_reason": "x"}',
    )
    legacy.migrate(hybrid, original.url, schema=original.schema)
    message = hybrid.messages.get(FIRST, 7)
    assert message is not None
    assert (message.text, message.status) == ("BUY now", Status.PUBLISHED)
    assert message.sent_at.isoformat() == "2024-03-01T11:59:00+00:00"
    assert message.received_at is not None
    assert message.received_at.isoformat() == "2024-03-01T12:00:00+00:00"
    assert message.metadata == {"processed_by": "g"}
    (revision,) = hybrid.messages.revisions(FIRST, 7)
    assert (revision.text, revision.reason) == ("BUY", RevisionReason.LEGACY_MERGE)
    assert revision.recorded_at.isoformat() == "2024-03-01T12:00:00+00:00"
    assert revision.version < message.version
    assert hybrid.messages.get(FIRST, 8) is None
    deleted = hybrid.messages.get(FIRST, 8, include_deleted=True)
    assert deleted is not None
    assert deleted.delete_reason == "x"
    # Broken on purpose: without deleted_from, an undo made it "received".
    assert hybrid.messages.restore(FIRST, 8).status is Status.PUBLISHED


def test_a_dry_run_reports_the_same_and_writes_nothing(
    hybrid: Hybrid, original: Original, dump: Dump
) -> None:
    # Broken on purpose: registering the channels before the dry run's end.
    originals.fill(original.connection, original.schema, 300)
    before = dump()
    tried = legacy.migrate(hybrid, original.url, schema=original.schema, dry_run=True)
    assert dump() == before
    assert tried.channels == ()
    done = legacy.migrate(hybrid, original.url, schema=original.schema)
    assert tried.found == done.found


def test_rows_that_cannot_be_brought_are_all_told_before_anything_is_written(
    hybrid: Hybrid, original: Original, dump: Dump
) -> None:
    # Broken on purpose: writing each channel as it was checked left the first one behind.
    originals.fill(original.connection, original.schema, 300)
    original.insert(channel_id="@signals", message_id=1)
    original.insert(channel_id="@signals", message_id=2)
    original.insert(message_id=-5)
    original.insert(message_id=900, text="x" * 70_000)
    before = dump()
    with pytest.raises(LegacyRefused, match="4 of 319 ") as refused:
        legacy.migrate(hybrid, original.url, schema=original.schema)
    report = refused.value.report
    assert isinstance(report, legacy.Migrated)
    assert report.found.refused == {"channel_id": 2, "message_id": 1, "text or caption": 1}
    assert any("@signals" in example for example in report.found.examples)
    assert any("message 900" in example for example in report.found.examples)
    assert dump() == before

    done = legacy.migrate(hybrid, original.url, schema=original.schema, on_error="skip")
    assert (done.brought, done.problems) == (300, ())
    assert done.found.merged + done.found.refused.total() == done.found.rows == 319


def test_json_that_nobody_can_read_is_refused_with_its_row_and_stops_no_other(
    hybrid: Hybrid, original: Original
) -> None:
    # Broken on purpose: read by the driver, the first of them ended the check with an error that
    # named neither field nor row, also with on_error="skip".
    original.insert(message_id=1, metadata='{"n": 1' + "0" * 5000 + "}")
    original.insert(message_id=2, metadata='{"deep": ' + "[" * 2000 + "]" * 2000 + "}")
    original.insert(message_id=3, media_refs="[1" + "0" * 5000 + "]")
    original.insert(message_id=4, metadata='{"n": 1' + "0" * 60 + "}", media_refs='["file"]')
    done = legacy.migrate(hybrid, original.url, schema=original.schema, on_error="skip")
    assert (done.brought, done.problems) == (1, ())
    assert done.found.refused == {"metadata": 2, "media_refs": 1}
    assert any(f"channel {FIRST}, message 3: media_refs: " in it for it in done.found.examples)
    kept = hybrid.messages.get(FIRST, 4)
    assert kept is not None
    assert (kept.metadata["n"], kept.media[0].file_id) == (10**60, "file")


def test_a_channel_may_be_named_and_spelled_in_several_ways(
    hybrid: Hybrid, original: Original
) -> None:
    original.insert(channel_id="@signals", message_id=1, text="first")
    original.insert(channel_id=f" {FIRST} ", message_id=1, text="last", received_at="2024-03-02Z")
    original.insert(channel_id=str(FIRST), message_id=2)
    done = legacy.migrate(
        hybrid, original.url, schema=original.schema, channels={"@signals": FIRST}
    )
    assert (done.found.messages, done.found.channels, done.problems) == (2, 1, ())
    assert [each.text for each in hybrid.messages.after(FIRST)] == ["last", "BUY"]
    assert [each.text for each in hybrid.messages.revisions(FIRST, 1)] == ["first"]


def test_what_is_stored_stays_and_gets_the_other_texts(hybrid: Hybrid, original: Original) -> None:
    # Broken on purpose: without the look at what is stored, the key was there twice.
    hybrid.messages.save(make_message(channel_id=FIRST, message_id=7, text="BUY now"))
    original.insert(message_id=7, text="BUY")
    original.insert(
        message_id=7, text="BUY now", received_at="2024-03-02Z", created_at="2024-03-02Z"
    )
    before = hybrid.messages.get(FIRST, 7)
    done = legacy.migrate(hybrid, original.url, schema=original.schema)
    assert (done.brought, done.present, done.revisions, done.problems) == (0, 1, 1, ())
    after = hybrid.messages.get(FIRST, 7)
    assert before is not None
    assert after is not None
    assert (after, after.version) == (before, before.version)
    assert [each.text for each in hybrid.messages.revisions(FIRST, 7)] == ["BUY"]
    # A redelivery of what was brought is a duplicate, an edit of it an edit.
    original.insert(message_id=8, text="SELL")
    legacy.migrate(hybrid, original.url, schema=original.schema)
    again = make_message(channel_id=FIRST, message_id=8, text="SELL")
    assert hybrid.messages.save(again).outcome is Outcome.DUPLICATE
    edit = make_message(channel_id=FIRST, message_id=8, text="SELL now")
    assert hybrid.messages.save(edit).outcome is Outcome.EDITED


class Crash(Exception):
    """The process ends here."""


def test_it_goes_on_after_a_crash_and_brings_nothing_twice(
    hybrid: Hybrid, original: Original, dump: Dump, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Broken on purpose: a channel that is begun anew is refused, as another process's would be.
    monkeypatch.setattr(batching, "ROWS", 100)
    originals.fill(original.connection, original.schema, 900)

    def crash(stage: str, _done: int, _total: int) -> None:
        if stage == "bring":
            raise Crash

    for _ in range(2):
        with pytest.raises(Crash):
            legacy.migrate(hybrid, original.url, schema=original.schema, told=crash)
    part = len(dump()["messages"])
    assert part == 200
    done = legacy.migrate(hybrid, original.url, schema=original.schema)
    assert (done.resumed, done.brought, done.present) == (part, 900, 0)
    assert done.problems == ()
    again = legacy.migrate(hybrid, original.url, schema=original.schema)
    assert (again.resumed, again.brought, again.problems) == (900, 900, ())


def test_two_at_once_do_not_bring_the_same(
    hybrid: Hybrid, original: Original, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Broken on purpose: without the look at how far it came, both noted the same batch.
    monkeypatch.setattr(batching, "ROWS", 100)
    originals.fill(original.connection, original.schema, 900)
    other: list[Exception] = []

    def meanwhile(stage: str, done: int, _total: int) -> None:
        if stage == "bring" and not other:
            other.append(Exception("begun"))
            legacy.migrate(hybrid, original.url, schema=original.schema)

    with pytest.raises(Exception, match="another process is bringing"):
        legacy.migrate(hybrid, original.url, schema=original.schema, told=meanwhile)
    assert legacy.migrate(hybrid, original.url, schema=original.schema).brought == 900


def test_writers_may_save_the_same_messages_meanwhile(hybrid: Hybrid, original: Original) -> None:
    # Seen to fail, not every time: two snapshots told of a difference where somebody edited.
    originals.fill(original.connection, original.schema, 600)
    failures: list[BaseException] = []

    def save(first: int) -> None:
        try:
            for number in range(first, 202, 3):
                hybrid.messages.save(
                    make_message(channel_id=FIRST, message_id=number, text=f"live {number}")
                )
        except BaseException as error:  # noqa: BLE001  (told below)
            failures.append(error)

    threads = [threading.Thread(target=save, args=(first,)) for first in (1, 2, 3)]
    for thread in threads:
        thread.start()
    done = legacy.migrate(hybrid, original.url, schema=original.schema)
    for thread in threads:
        thread.join()
    assert failures == []
    result = next(each for each in done.channels if each.channel_id == FIRST)
    assert result.brought + result.present == result.messages == 200
    assert done.problems == ()
    for message in hybrid.messages.after(FIRST, message_id=1, include_deleted=True):
        assert message.text == f"live {message.message_id}"
        assert len(hybrid.messages.revisions(FIRST, message.message_id)) >= 1


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("UPDATE {new}.messages SET text = text || '.' WHERE message_id = 40", "checksums"),
        (
            "UPDATE {new}.messages SET sent_at = sent_at + '1 s' WHERE message_id = 40;"
            "UPDATE {new}.message_keys SET sent_at = sent_at + '1 s' WHERE message_id = 40",
            "checksums",
        ),
        ("DELETE FROM {new}.message_revisions WHERE message_id = 41", "texts"),
        (
            "DELETE FROM {new}.messages WHERE message_id = 41;"
            "DELETE FROM {new}.message_keys WHERE message_id = 41",
            "messages in the source",
        ),
        ("DELETE FROM {old}.messages WHERE message_id = 41", "messages in the source"),
    ],
    ids=["text", "time", "revision", "lost", "source"],
)
def test_what_differs_afterwards_is_found(
    hybrid: Hybrid, original: Original, damage: str, problem: str
) -> None:
    # Broken on purpose: without sent_at in the checksum, "time" was not found.
    originals.fill(original.connection, original.schema, 150)
    assert legacy.migrate(hybrid, original.url, schema=original.schema).problems == ()
    for statement in damage.split(";"):
        original.ask(statement.replace("{new}", hybrid.settings.database_schema))
    found = legacy.migrate(hybrid, original.url, schema=original.schema).problems
    assert found
    assert all(problem in each for each in found)


def test_what_was_changed_since_is_no_problem(hybrid: Hybrid, original: Original) -> None:
    originals.fill(original.connection, original.schema, 150)
    legacy.migrate(hybrid, original.url, schema=original.schema)
    edited = make_message(channel_id=FIRST, message_id=20, text="another")
    assert hybrid.messages.save(edited).outcome is Outcome.EDITED
    done = legacy.migrate(hybrid, original.url, schema=original.schema)
    assert done.problems == ()
    assert sum(each.changed for each in done.channels) == 1
    assert sum(each.verified for each in done.channels) == 149


def test_caches_learn_of_what_was_brought(hybrid: Hybrid, original: Original) -> None:
    # Broken on purpose: without telling the cache, the absence was served for a minute.
    original.insert(message_id=7)
    hybrid.messages.save(make_message(channel_id=FIRST, message_id=9, text="here"))
    for _ in range(2):
        assert hybrid.messages.get(FIRST, 7) is None
        assert [each.message_id for each in hybrid.messages.latest(FIRST)] == [9]
    legacy.migrate(hybrid, original.url, schema=original.schema)
    assert hybrid.messages.get(FIRST, 7) is not None
    assert [each.message_id for each in hybrid.messages.latest(FIRST)] == [9, 7]


def test_changes_list_what_was_brought_and_removed_once(hybrid: Hybrid, original: Original) -> None:
    # Broken on purpose: without the rows of the log, the reader heard nothing of either.
    hybrid.messages.save(make_message(channel_id=FIRST, message_id=1))
    cursor = hybrid.messages.changes("now").cursor
    original.insert(message_id=7, status="published")
    original.insert(message_id=8, channel_id=str(originals.CHANNELS[1]))
    legacy.migrate(hybrid, original.url, schema=original.schema)
    brought = hybrid.messages.changes(cursor)
    assert {(each.key.message_id, each.type, each.status) for each in brought} == {
        (7, EventType.RECEIVED, Status.PUBLISHED),
        (8, EventType.RECEIVED, Status.RECEIVED),
    }
    legacy.rollback(hybrid)
    removed = hybrid.messages.changes(brought.cursor)
    assert sorted((each.key.message_id, each.type) for each in removed) == [
        (7, EventType.DELETED),
        (8, EventType.DELETED),
    ]
    assert [each.message for each in removed] == [None, None]
    assert not hybrid.messages.changes(removed.cursor)


def test_a_database_of_no_encoding_is_refused(hybrid: Hybrid, original: Original) -> None:
    name = f"{original.schema}_ascii"
    original.ask(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    try:
        url = original.url.replace("/telegram?", f"/{name}?")
        with psycopg.connect(url) as connection:
            originals.build(connection, "old")
        assert "SQL_ASCII" in refusal(hybrid, url, "old")
    finally:
        original.ask(f"DROP DATABASE {name}")


def test_the_source_is_read_only_and_one_snapshot(original: Original) -> None:
    # Broken on purpose: without postgresql_readonly the row was written.
    original.insert(message_id=7)
    with open_source(original.url, original.schema) as source:
        assert source.inspect() == []
        original.insert(message_id=8)
        assert [each.rows for each in source.spellings()] == [1]
        with pytest.raises(DBAPIError, match="read-only"):
            source._ask('DELETE FROM "{schema}".messages')
        source._connection.rollback()


def refusal(hybrid: Hybrid, url: str, schema: str, **options: Any) -> str:
    with pytest.raises(InvalidInput) as refused:
        legacy.migrate(hybrid, url, schema=schema, **options)
    return str(refused.value)


def test_a_source_that_is_none_says_why(hybrid: Hybrid, original: Original) -> None:
    ours = hybrid.settings.database_schema
    assert "is one of this library" in refusal(hybrid, original.url, ours)
    missing = refusal(hybrid, original.url, "nowhere")
    assert "no table messages in schema nowhere" in missing
    assert original.schema in missing
    assert "from_schema" in refusal(hybrid, original.url, "No Where")
    assert "source: expected" in refusal(hybrid, "mysql://db/telegram", "x")
    original.ask("ALTER TABLE {old}.messages DROP COLUMN text, ALTER received_at TYPE timestamp")
    both = refusal(hybrid, original.url, original.schema)
    assert "has no column text" in both
    assert "received_at is timestamp without time zone" in both


def test_columns_that_it_can_do_without_may_be_missing(hybrid: Hybrid, original: Original) -> None:
    original.ask("ALTER TABLE {old}.messages DROP COLUMN metadata, DROP COLUMN telegram_date")
    original.ask("ALTER TABLE {old}.messages DROP COLUMN id")
    original.insert(message_id=7)
    original.insert(message_id=7, text="later", received_at="2024-03-02Z", created_at="2024-03-02Z")
    done = legacy.migrate(hybrid, original.url, schema=original.schema)
    assert done.found.missing == ("id", "metadata", "telegram_date")
    assert (done.brought, done.revisions, done.problems) == (1, 1, ())


def test_a_time_that_python_cannot_hold_is_none(hybrid: Hybrid, original: Original) -> None:
    # Broken on purpose: reading the column as it is, infinity ended the whole run.
    original.insert(message_id=7, telegram_date="infinity", published_at="0001-01-01 00:00Z BC")
    done = legacy.migrate(hybrid, original.url, schema=original.schema)
    message = hybrid.messages.get(FIRST, 7)
    assert message is not None
    assert message.sent_at == message.received_at
    assert any("outside 1970" in notice for notice in done.found.notices)
    assert done.problems == ()


def test_a_target_that_cannot_be_one_says_why(
    telegram_settings: Settings, original: Original
) -> None:
    import attrs

    with connect(telegram_settings) as hybrid, pytest.raises(SchemaMismatch, match="migrate up"):
        legacy.migrate(hybrid, original.url, schema=original.schema)
    same = attrs.evolve(telegram_settings, database_schema=original.schema)
    with connect(same) as hybrid:
        assert "holds the original's tables" in refusal(hybrid, original.url, original.schema)
