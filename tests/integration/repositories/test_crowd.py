"""A crowd of writers of the same messages (P1, P2), and that its judge sees what goes wrong."""

from __future__ import annotations

import random

import attrs
import pytest
from crowd.judge import Kind, Report, judge
from crowd.plan import WRITERS, Fate, Story, stories
from crowd.writers import crowd, stored, write
from sqlalchemy import text

from telegram_hybrid import Hybrid
from telegram_hybrid.model import MessageKey

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(1800),
    pytest.mark.one_plain_server,  # as long as many others together
]

SEED = 6


@pytest.mark.parametrize("messages", [700, pytest.param(50_000, marks=pytest.mark.long)])
def test_a_crowd_of_writers_stores_each_message_once_with_all_that_was_said(
    hybrid: Hybrid, messages: int
) -> None:
    # Broken on purpose: without the locks of lock_channels writers met unique violations, and
    # messages were missing; with every edit of another time taken for a newer one, old contents
    # came back; with late edits not kept, with edits that undo a deletion: each was seen. With
    # `compare` told no `said_at`, older contents stood where an edit had gone back.
    reports = crowd(hybrid.settings, seed=SEED, messages=messages, seconds=1700)
    store = stored(hybrid)
    violations = judge(stories(SEED, messages), reports, store)
    edits = sum(each.edited for each in reports)
    deletions = sum(each.deleted for each in reports)
    print(
        f"\n{WRITERS} writers: {len(store.rows):,} messages, {len(store.revisions):,} revisions,"
        f" {len(store.events):,} events, {edits:,} edits, {deletions:,} deletions"
    )
    assert not violations, f"{len(violations)}: {violations[:5]}"
    assert len(store.rows) == messages
    assert min(edits, deletions) > 0


@pytest.mark.one_server
def test_the_judge_of_the_crowd_finds_what_is_planted(hybrid: Hybrid) -> None:
    told = stories(SEED, 200)
    reports = [write(hybrid, told, SEED, writer) for writer in range(WRITERS)]
    assert judge(told, reports, stored(hybrid)) == []

    free = random.Random(SEED).sample(told, len(told))

    def key(edits: int = 0, fate: Fate = Fate.KEPT) -> MessageKey:
        """Of a message that nothing was planted on."""
        fit = (each for each in free if len(each.contents) > edits and not each.goes_back)
        found = next(each for each in fit if each.fate is fate)
        free.remove(found)
        return found.key

    row = "WHERE channel_id = :channel_id AND message_id = :message_id"
    columns = "shard, event_id, type, channel_id, message_id, payload"
    planted = {
        (Kind.MISSING, key()): f"DELETE FROM {{s}}.messages {row}",
        (Kind.TWICE, key()): "CREATE TEMP TABLE again ON COMMIT DROP AS SELECT * FROM {s}.messages "
        f"{row}; UPDATE again SET sent_at = sent_at + interval '1 s';"
        " INSERT INTO {s}.messages SELECT * FROM again",
        (Kind.DISPLACED, key()): "UPDATE {s}.message_keys SET sent_at = sent_at + interval '1 s' "
        + row,
        (Kind.STALE, key(1)): f"UPDATE {{s}}.messages SET text = 'old' {row}",
        (Kind.FORGOTTEN, key(2)): "DELETE FROM {s}.message_revisions AS gone USING (SELECT * FROM"
        f" {{s}}.message_revisions {row} ORDER BY version LIMIT 1) AS first WHERE (gone.channel_id,"
        " gone.message_id, gone.text, gone.caption) IS NOT DISTINCT FROM"
        " (first.channel_id, first.message_id, first.text, first.caption)",
        (Kind.INVENTED, key()): "INSERT INTO {s}.message_revisions (channel_id, message_id,"
        " version, text) VALUES (:channel_id, :message_id, 1, 'never said')",
        (Kind.UNDONE, key(fate=Fate.DELETED)): "UPDATE {s}.messages SET status = 'received',"
        f" deleted_at = NULL {row}",
        (
            Kind.UNDONE,
            key(fate=Fate.PUBLISHED),
        ): f"UPDATE {{s}}.messages SET status = 'reprocess_pending' {row}",
        (Kind.SILENT, key()): "UPDATE {s}.messages SET version = nextval('{s}.message_version') "
        + row,
        (Kind.DISORDERED, key()): f"INSERT INTO {{s}}.outbox ({columns}) SELECT {columns}"
        f" FROM {{s}}.outbox {row} LIMIT 1",
        (Kind.DISORDERED, key(fate=Fate.DELETED)): "UPDATE {s}.outbox SET id = -id "
        f"{row} AND type = 'message.deleted'",
    }
    with hybrid.engine.begin() as connection:
        schema = hybrid.settings.database_schema
        for (_, at), statements in planted.items():
            for statement in statements.split(";"):
                connection.execute(text(statement.replace("{s}", schema)), at._asdict())
    reports += [Report(errors=["WriteConflict"]), Report(edited=1)]
    told.append(_never_saved(told[0]))
    found = {(each.kind, each.key) for each in judge(told, reports, stored(hybrid))}
    assert found == {
        *planted,
        (Kind.REFUSED, None),
        (Kind.MISCOUNTED, None),
        (Kind.MISSING, told[-1].key),
        (Kind.DISORDERED, told[-1].key),
    }


def _never_saved(story: Story) -> Story:
    return Story((attrs.evolve(story.contents[0], message_id=10**6),), Fate.KEPT)
