"""Plans of what is asked often: no scan of a large table, and only the partitions concerned.

Every call is made as users make it, while auto_explain tells the plan of each statement that it
leads to, those within functions of the database among them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from sqlalchemy import event, text

from telegram_hybrid import Hybrid, Settings, Status, connect
from telegram_hybrid.repositories.messages import Messages
from telegram_hybrid.schema.postgres.sql import sql
from telegram_hybrid.testing import make_message

pytestmark = pytest.mark.integration

CHANNEL = -1001
WEEKS, EACH, ALL = 5, 3_000, 100
BEGAN = datetime(2026, 3, 2, tzinfo=UTC)
LAST = WEEKS * EACH
VALUES = {"began": BEGAN, "each": EACH, "last": LAST, "channel_id": CHANNEL}
#: Those that grow; the others have a row for each channel, status or shard.
LARGE = re.compile(
    r"messages(_\d.*)?|_hyper_.*|message_(keys|confirmations|revisions|changes|claims|rollups)|outbox"
)
#: As if saved: a week of posts is not much where a scan of a partition is no mistake.
FILL = """
WITH number AS (
    SELECT n, CAST(:began AS timestamptz) + (n - 1) * interval '7 days' / :each AS sent_at
    FROM generate_series(1, :last) AS n
), keyed AS (
    INSERT INTO "{schema}".message_keys (channel_id, message_id, sent_at)
    SELECT :channel_id, n, sent_at FROM number ON CONFLICT DO NOTHING
    RETURNING message_id
), logged AS (
    INSERT INTO "{schema}".message_changes
        (channel_id, version, message_id, type, status, changed_at)
    SELECT :channel_id, 1000000 + n, n, 'message.received', 'received', now()
    FROM number JOIN keyed ON message_id = n
), revised AS (
    INSERT INTO "{schema}".message_revisions (channel_id, message_id, version, text)
    SELECT :channel_id, message_id, 1, repeat('earlier ', 20) FROM keyed
), head AS (
    UPDATE "{schema}".channel_heads SET version = 1000000 + :last WHERE channel_id = :channel_id
)
INSERT INTO "{schema}".messages
    (channel_id, message_id, sent_at, version, source, message_type, text, entities, media,
     metadata, status)
SELECT :channel_id, n, sent_at, 1000000 + n, 'bot', 'channel_post', 'BUY', '[]', '[]',
       json_build_object('note', repeat(md5(CAST(n AS text)), 20)), 'received'
FROM number JOIN keyed ON message_id = n
"""
PARTS = re.compile(r"messages_\d.*|_hyper_.*")


@attrs.define
class Watched:
    """A filled store, and the plans of what is said to it since `forget`."""

    hybrid: Hybrid
    plans: list[dict[str, Any]] = attrs.field(factory=list)

    def nodes(self) -> Iterator[dict[str, Any]]:
        """Those that were executed, and that read a table."""
        waiting = [plan["Plan"] for plan in self.plans]
        while waiting:
            node = waiting.pop()
            waiting += node.get("Plans", [])
            if node.get("Actual Loops") and "Relation Name" in node:
                yield node

    def hear(self, diagnostic: Any) -> None:
        said = diagnostic.message_primary or ""
        if "plan:" in said:
            self.plans.append(json.loads(said[said.index("{") :]))

    @property
    def messages(self) -> Messages:
        return self.hybrid.messages


@pytest.fixture
def watched(telegram_settings: Settings) -> Iterator[Watched]:
    with connect(attrs.evolve(telegram_settings, redis_url=None)) as hybrid:
        hybrid.migrate()
        hybrid.messages.save_many(new(number) for number in range(1, LAST, EACH // 10))
        with hybrid.engine.begin() as connection:
            connection.execute(sql(FILL, hybrid.settings.database_schema), VALUES)
        seen = Watched(hybrid)

        def begin(connection: Any, _: object) -> None:
            connection.add_notice_handler(seen.hear)
            connection.execute("LOAD 'auto_explain'")
            for name, value in {
                "random_page_cost": "1.1",  # as in the deployment
                "auto_explain.log_min_duration": "0",
                "auto_explain.log_analyze": "on",
                "auto_explain.log_timing": "off",
                "auto_explain.log_nested_statements": "on",
                "auto_explain.log_format": "json",
                "auto_explain.log_level": "notice",
            }.items():
                connection.execute(f"SET {name} = {value}")
            connection.commit()

        with hybrid.engine.begin() as connection:
            for table in ("messages", "message_keys", "message_changes", "message_revisions"):
                connection.execute(text(f"ANALYZE {hybrid.settings.database_schema}.{table}"))
        hybrid.engine.dispose()
        event.listen(hybrid.engine, "connect", begin)
        yield seen
        event.remove(hybrid.engine, "connect", begin)
        hybrid.destroy()


def new(number: int, **fields: Any) -> Any:
    sent = BEGAN + timedelta(weeks=1) * (min(number, LAST) - 1) / EACH
    return make_message(channel_id=CHANNEL, message_id=number, sent_at=sent, **fields)


def settle(messages: Messages) -> None:
    held = messages.claim("worker", limit=3, channels=[CHANNEL])
    held = messages.renew(held)
    messages.release(held[:1])
    messages.settle(held[1:], Status.PUBLISHED)


def walk(messages: Messages) -> None:
    cursor = messages.changes(limit=100).cursor
    assert len(messages.changes(cursor, limit=100)) == 100


#: Each call, and how many partitions it may open.
CALLS: dict[str, tuple[int, Callable[[Messages], object]]] = {
    "get": (1, lambda m: m.get(CHANNEL, 1_000)),
    "get_many": (3, lambda m: m.get_many(CHANNEL, [100, 4_000, 14_000])),
    "seen": (0, lambda m: m.seen(CHANNEL, [1, 2, 10**6])),
    "latest": (2, lambda m: m.latest(CHANNEL, limit=100)),
    "after": (2, lambda m: m.after(CHANNEL, message_id=1_000, limit=100)),
    "history": (2, lambda m: m.history(CHANNEL, limit=100)),
    "revisions": (0, lambda m: m.revisions(CHANNEL, 1_000)),
    "changes": (WEEKS + 1, walk),  # the first ones are those that were saved, of every week
    "save": (1, lambda m: (m.save(new(LAST + 1)), m.save(new(LAST + 1)))),
    "save_many": (2, lambda m: m.save_many(new(n, text="BUY") for n in range(2_950, 3_050))),
    "mark": (1, lambda m: m.mark(CHANNEL, 900, Status.PUBLISHED)),
    "mark_many": (2, lambda m: m.mark_many(CHANNEL, range(1_000, 1_100), Status.QUEUED)),
    "request_reprocess": (1, lambda m: m.request_reprocess(CHANNEL, [10, 11])),
    "delete": (1, lambda m: m.delete(CHANNEL, 1_200)),
    "delete_many": (1, lambda m: m.delete_many(CHANNEL, [1_201, 1_202])),
    "restore": (1, lambda m: (m.delete(CHANNEL, 1_300), m.restore(CHANNEL, 1_300))),
    "restore_many": (1, lambda m: (m.delete(CHANNEL, 1_301), m.restore_many(CHANNEL, [1_301]))),
    # Oldest first over all partitions, each from its own index until there are enough.
    "pending": (ALL, lambda m: m.pending(CHANNEL, limit=10)),
    "settle": (ALL, settle),
}
#: What has guards of its own: see test_search and test_claims.
ELSEWHERE = {"search", "claim", "renew", "release"}


def test_every_call_has_a_guard() -> None:
    # Broken on purpose: with "seen" taken out of CALLS.
    public = {name for name in dir(Messages) if not name.startswith("_")}
    assert public == CALLS.keys() | ELSEWHERE


@pytest.mark.timeout(120)
def test_no_call_scans_a_large_table_or_opens_partitions_of_others(watched: Watched) -> None:
    """Seen to fail on PostgreSQL 15 when `latest` looked for a list of times, not for a range.

    Broken on purpose: without `sent_at` in what read_messages asks ("get" opens all partitions),
    and with `message_id + 0` in the order of the keys, so that `latest` scans them.
    """
    for name, (most, call) in CALLS.items():
        watched.plans.clear()
        call(watched.messages)
        assert watched.plans, name
        scanned = [
            node["Relation Name"]
            for node in watched.nodes()
            if node["Node Type"] == "Seq Scan" and LARGE.fullmatch(node["Relation Name"])
        ]
        assert scanned == [], name
        opened = {
            node["Relation Name"]
            for node in watched.nodes()
            if PARTS.fullmatch(node["Relation Name"]) and node["Node Type"] != "ModifyTable"
        }
        assert len(opened) <= most, (name, opened)
