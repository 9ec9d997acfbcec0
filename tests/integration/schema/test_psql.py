"""Functions and views for people with only psql: they obey the rules of the library."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from telegram_hybrid import Channel, Hybrid, Message, Settings, Status, connect
from telegram_hybrid.model.results import Revision
from telegram_hybrid.outbox.locks import lock_channels
from telegram_hybrid.testing import make_message, make_messages
from telegram_hybrid.testing.factories import CHANNEL_ID

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]
SENT = datetime(2026, 5, 4, 12, tzinfo=UTC)


def ask(hybrid: Hybrid, query: str, **values: Any) -> list[Any]:
    with hybrid.engine.begin() as connection:
        said = text(query.replace("{s}", hybrid.settings.database_schema))
        result = connection.execute(said, values)
        return list(result) if result.returns_rows else []


def upsert(hybrid: Hybrid, **fields: Any) -> str:
    given = {"channel_id": CHANNEL_ID, "message_id": 42, "sent_at": SENT, **fields}
    arguments = ", ".join(f"{name} => CAST(:{name} AS {kind(name)})" for name in given)
    ((outcome,),) = ask(hybrid, f'SELECT "{{s}}".upsert_message({arguments})', **given)
    return str(outcome)


def kind(name: str) -> str:
    times, numbers = ("sent_at", "edited_at"), ("channel_id", "message_id", "reply_to_id")
    return (
        "timestamptz"
        if name in times
        else "bigint"
        if name in numbers
        else "jsonb"
        if name == "metadata"
        else "text"
    )


def events(hybrid: Hybrid) -> list[tuple[str, Message]]:
    rows = ask(hybrid, 'SELECT type, payload::text FROM "{s}".outbox ORDER BY id')
    return [(row.type, Message.from_json(row.payload)) for row in rows]


def whole(message: Message | None) -> dict[str, Any]:
    """Also what takes no part in equality."""
    assert message is not None
    return attrs.asdict(message, recurse=False)


@pytest.fixture
def other(telegram_settings: Settings) -> Iterator[Hybrid]:
    """A second store on the same servers."""
    name = f"{telegram_settings.database_schema}_other"
    settings = attrs.evolve(telegram_settings, database_schema=name, redis_prefix=name)
    with connect(settings) as ready:
        ready.migrate()
        yield ready
        ready.destroy()


def test_a_message_is_stored_with_its_event_and_read_by_the_library(hybrid: Hybrid) -> None:
    # Broken on purpose: without the version in the payload, the event told another message.
    assert upsert(hybrid, text="BUY", metadata='{"by": "hand"}', sender_name="Ann") == "inserted"
    stored = hybrid.messages.get(CHANNEL_ID, 42)
    assert stored == make_message(
        message_id=42,
        channel_id=CHANNEL_ID,
        sent_at=SENT,
        text="BUY",
        metadata={"by": "hand"},
        sender_name="Ann",
        source="unknown",
    )
    ((told, message),) = events(hybrid)
    assert told == "message.received"
    assert whole(message) == whole(stored)
    assert [each.channel_id for each in hybrid.channels.list()] == [CHANNEL_ID]
    (change,) = hybrid.messages.changes()
    assert change.version == message.version


def test_psql_and_the_library_make_the_same_of_the_same_posts(
    hybrid: Hybrid, other: Hybrid
) -> None:
    # Broken on purpose: with `<=` for `<` in the comparison of edited_at, and with the revision
    # of an edit left out.
    chance = random.Random(7)
    posts = [
        Message(
            channel_id=CHANNEL_ID,
            message_id=chance.randint(1, 5),
            sent_at=SENT + timedelta(seconds=n),
            text=chance.choice(["BUY", "SELL", ""]),
            caption=chance.choice([None, "BTC", ""]),
            edited_at=chance.choice([None, *(SENT + timedelta(hours=h) for h in range(3))]),
        )
        for n in range(120)
    ]
    for post in posts:
        outcome = other.messages.save(post).outcome
        fields = ("message_id", "sent_at", "text", "caption", "edited_at")
        given = {name: getattr(post, name) for name in fields}
        assert upsert(hybrid, **given) == outcome
    for number in range(1, 6):
        assert hybrid.messages.get(CHANNEL_ID, number) == other.messages.get(CHANNEL_ID, number)
        assert said(hybrid, number) == said(other, number)
    ours, theirs = events(hybrid), events(other)
    assert ours == theirs
    assert len(ours) > 20


def said(hybrid: Hybrid, number: int) -> list[tuple[Any, ...]]:
    def parts(each: Revision) -> tuple[Any, ...]:
        return each.text, each.caption, each.edited_at, each.reason

    return [parts(each) for each in hybrid.messages.revisions(CHANNEL_ID, number)]


def test_a_deletion_stays_and_so_does_the_status(hybrid: Hybrid) -> None:
    hybrid.messages.save(make_message(message_id=42, text="old"))
    hybrid.messages.mark(CHANNEL_ID, 42, Status.PUBLISHED)
    hybrid.messages.delete(CHANNEL_ID, 42)
    assert upsert(hybrid, text="new") == "edited"
    stored = hybrid.messages.get(CHANNEL_ID, 42, include_deleted=True)
    assert stored is not None
    assert stored.status is Status.DELETED
    assert stored.text == "new"


def test_writers_of_one_message_wait_for_each_other(hybrid: Hybrid) -> None:
    # Broken on purpose: with another prefix of the lock, psql did not wait for the library.
    outcomes: list[str] = []
    schema = hybrid.settings.database_schema
    with hybrid.engine.begin() as connection:
        lock_channels(connection, schema, [CHANNEL_ID])
        threads = [
            threading.Thread(target=lambda: outcomes.append(upsert(hybrid, text="BUY")))
            for _ in range(3)
        ]
        for each in threads:
            each.start()
        threads[0].join(0.3)
        assert outcomes == []
    for each in threads:
        each.join(20)
    assert sorted(outcomes) == ["duplicate", "duplicate", "inserted"]
    assert len(events(hybrid)) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channel_id", 0),
        ("channel_id", 2**52),
        ("message_id", -1),
        ("sent_at", None),
        ("edited_at", "infinity"),
        ("text", "x" * 65_537),
        ("source", "nowhere"),
        ("message_type", None),
        ("metadata", "[1]"),
        ("sender_name", "x" * 4_097),
    ],
)
def test_what_the_library_could_not_read_is_refused(hybrid: Hybrid, field: str, value: Any) -> None:
    with pytest.raises(DBAPIError, match=field):
        upsert(hybrid, **{field: value})
    for table in ("messages", "message_keys", "outbox", "channels"):
        assert ask(hybrid, f'SELECT FROM "{{s}}".{table}') == []


def arrays(levels: int) -> str:
    """A JSON object of so many levels."""
    return '{"in": ' + "[" * (levels - 1) + "]" * (levels - 1) + "}"


def test_its_bounds_are_those_of_the_library(hybrid: Hybrid) -> None:
    # Broken on purpose: without each of the bounds the call stored a message that raised where it
    # was read: `latest` of its channel, every claim, and `changes` for good.
    for field, beyond in [
        ("sent_at", "1969-12-31 23:59:59Z"),
        ("sent_at", "2100-01-01Z"),
        ("edited_at", "1969-12-31 23:59:59Z"),
        ("metadata", arrays(257)),
        ("metadata", '{"n": 1' + "0" * 5_000 + "}"),
        ("metadata", '{"n": [-1e400]}'),
    ]:
        with pytest.raises(DBAPIError, match=f"{field}: expected"):
            upsert(hybrid, **{field: beyond})
    deepest = {"metadata": arrays(256), "sent_at": "1970-01-01Z"}
    assert upsert(hybrid, message_id=1, **deepest) == "inserted"
    large = '{"%s": "' + "x" * 150_000 + '"}'
    assert upsert(hybrid, message_id=2, metadata=large % "a") == "inserted"
    with pytest.raises(DBAPIError, match="metadata: more than 262144 bytes"):
        upsert(hybrid, message_id=2, text="other", metadata=large % "b")
    assert upsert(hybrid, message_id=2, text="other") == "edited"
    assert len(hybrid.messages.latest(CHANNEL_ID)) == len(hybrid.messages.claim("a")) == 2
    assert len(hybrid.messages.changes()) == 3


def test_a_channel_is_registered_and_brought_up_to_date(hybrid: Hybrid) -> None:
    ask(hybrid, """SELECT "{s}".upsert_channel(-1001, title => 'News', label => 'n')""")
    ask(hybrid, """SELECT "{s}".upsert_channel(-1001, username => 'news')""")
    channel = hybrid.channels.get(-1001)
    assert channel is not None
    assert (channel.title, channel.username, channel.label) == ("News", "news", "n")


def test_looking(hybrid: Hybrid) -> None:
    hybrid.channels.register(Channel(channel_id=CHANNEL_ID, title="Signals"))
    posts = [
        attrs.evolve(each, message_id=n, sent_at=datetime.now(UTC) - timedelta(days=20 * (n % 3)))
        for each, n in zip(make_messages(6), (1, 2, 3, 7, 9, 10), strict=True)
    ]
    hybrid.messages.save_many(posts)
    hybrid.messages.mark(CHANNEL_ID, 3, Status.PUBLISHED)
    found = ask(hybrid, 'SELECT message_id FROM "{s}".recent_messages(:c, 4)', c=CHANNEL_ID)
    assert [row.message_id for row in found] == [10, 9, 7, 3]
    gaps = ask(
        hybrid, 'SELECT first_id, last_id, missing FROM "{s}".message_gaps(:c)', c=CHANNEL_ID
    )
    assert [tuple(row) for row in gaps] == [(4, 6, 3), (8, 8, 1)]
    # Broken on purpose: without reprocess_pending, what waits to be claimed was not all of it.
    hybrid.messages.request_reprocess(CHANNEL_ID, [2])
    (row,) = ask(hybrid, "SELECT * FROM \"{s}\".channel_activity(now() - interval '90 days')")
    assert (row.title, row.messages, row.unprocessed) == ("Signals", 6, 5)


def test_metadata_are_found_by_their_index(hybrid: Hybrid) -> None:
    # Broken on purpose: without the index, a sequential scan of every partition.
    posts = [
        attrs.evolve(each, metadata={"processed_by": f"worker-{n % 1000}", "views": n})
        for n, each in enumerate(make_messages(3000))
    ]
    hybrid.messages.save_many(posts)
    found = ask(
        hybrid,
        """SELECT message_id FROM "{s}".find_messages(CAST(:m AS jsonb))""",
        m='{"processed_by": "worker-7"}',
    )
    assert [row.message_id for row in found] == [posts[n].message_id for n in (2007, 1007, 7)]
    ask(hybrid, 'ANALYZE "{s}".messages')
    plan = ask(
        hybrid,
        """EXPLAIN SELECT * FROM "{s}".messages WHERE metadata @> '{"processed_by": "worker-7"}'
        ORDER BY sent_at DESC LIMIT 100""",
    )
    told = "\n".join(row[0] for row in plan)
    assert "Bitmap Index Scan" in told
    assert "metadata" in told


@pytest.mark.one_server
def test_the_page_runs_in_psql(hybrid: Hybrid) -> None:
    # Broken on purpose: with a function misspelt in the page.
    program = shutil.which("psql")
    if program is None:
        pytest.skip("psql is not installed (apt-get install postgresql-client)")
    page = (ROOT / "docs/psql.md").read_text()
    blocks = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    script = "\n".join(blocks).replace("telegram_gateway", hybrid.settings.database_schema)
    done = subprocess.run(
        [program, "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", hybrid.settings.database_url],
        input=script,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "inserted\nedited\n" in done.stdout
    assert "BUY BTC, stop 61000" in done.stdout
    assert {row[0] for row in made(hybrid)} <= set(re.findall(r"\w+", page))


def made(hybrid: Hybrid) -> list[Any]:
    """The names of what a person with psql is given."""
    return ask(
        hybrid,
        """SELECT relname FROM pg_class WHERE relkind = 'v'
           AND relnamespace = CAST('{s}' AS regnamespace)""",
    )


def test_watching(hybrid: Hybrid) -> None:
    hybrid.messages.save_many(make_messages(30))
    parts = ask(hybrid, 'SELECT * FROM "{s}".monitor_storage')
    assert {"outbox", "message_keys"} <= {row.table for row in parts}
    assert sum(row.table_bytes > 0 for row in parts if row.table == "messages") >= 1
    names = {row.index for row in ask(hybrid, 'SELECT * FROM "{s}".monitor_indexes')}
    assert {"message_keys_pkey", "outbox_pkey"} <= names
    tables = {row.table for row in ask(hybrid, 'SELECT * FROM "{s}".monitor_cache_hits')}
    assert {"messages", "outbox"} <= tables
    shards = ask(hybrid, 'SELECT * FROM "{s}".monitor_outbox')
    assert len(shards) == 16
    assert sum(row.waiting for row in shards) == 30
    (channel,) = ask(hybrid, 'SELECT * FROM "{s}".monitor_channels')
    assert channel.unpublished == 30
    assert channel.lag.total_seconds() >= 0
    assert ask(hybrid, 'SELECT * FROM "{s}".monitor_slow_statements(5)') == []
