"""Copies of a message become one: what wins, what is kept, and that the order does not matter."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.legacy.merging import Merged, Notice, merge
from telegram_hybrid.legacy.rows import LegacyRow
from telegram_hybrid.model import MessageType, Source, Status

CHANNEL = -1001649127710
SENT = datetime(2024, 3, 1, 12, 0, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return SENT + timedelta(minutes=minutes)


def row(**fields: Any) -> LegacyRow:
    defaults: dict[str, Any] = {
        "message_id": 7,
        "id": "a",
        "text": "BUY BTCUSDT",
        "source": "bot",
        "message_type": "channel_post",
        "status": "received",
        "telegram_date": SENT,
        "is_dated": True,
        "received_at": at(1),
        "created_at": at(1),
        "updated_at": at(1),
        "metadata": {},
        "media_refs": [],
    }
    return LegacyRow(**(defaults | fields))


def merged(*rows: LegacyRow) -> Merged:
    return merge(CHANNEL, rows)


def test_one_row_is_its_message() -> None:
    found = merged(row(thread_id=3, metadata={"processed_by": "g"}, published_at=at(2)))
    message = found.message
    assert (message.channel_id, message.message_id, message.thread_id) == (CHANNEL, 7, 3)
    assert (message.text, message.caption, message.sent_at) == ("BUY BTCUSDT", None, SENT)
    assert (message.source, message.message_type) == (Source.BOT, MessageType.CHANNEL_POST)
    assert (message.status, message.received_at) == (Status.RECEIVED, at(1))
    assert message.metadata == {"processed_by": "g"}
    assert found.times["published_at"] == at(2)
    assert found.times["updated_at"] == at(1)
    assert (found.earlier, found.notices, found.copies) == ((), frozenset(), 1)


def test_the_copy_that_arrived_last_has_the_content_and_the_others_are_kept_once() -> None:
    # Broken on purpose: sorting by created_at first took "second" for the newest.
    found = merged(
        row(text="third", received_at=at(9), created_at=at(2)),
        row(text="first", received_at=at(1)),
        row(text="second", received_at=at(5), created_at=at(20)),
        row(text="first", received_at=at(6)),
    )
    assert found.message.text == "third"
    assert [(each.text, each.at) for each in found.earlier] == [
        ("first", at(1)),
        ("second", at(5)),
    ]
    assert found.copies == 4


def test_a_caption_alone_is_a_content_of_its_own() -> None:
    # Broken on purpose: comparing texts alone lost the first caption.
    found = merged(
        row(text=None, caption="a chart"), row(text=None, caption="a map", received_at=at(2))
    )
    assert (found.message.text, found.message.caption) == ("", "a map")
    assert [(each.text, each.caption) for each in found.earlier] == [("", "a chart")]


def test_a_missing_date_is_that_of_another_copy_or_of_the_first_arrival() -> None:
    # Broken on purpose: taking the last copy's date alone.
    other = merged(row(), row(telegram_date=None, is_dated=False, received_at=at(9)))
    assert (other.message.sent_at, other.notices) == (SENT, frozenset())
    none = {"telegram_date": None, "is_dated": False}
    alone = merged(row(**none, received_at=at(9)), row(**none, received_at=at(4)))
    assert (alone.message.sent_at, alone.notices) == (at(4), {Notice.NO_DATE})
    assert alone.message.metadata == {"legacy": {"sent_at": "received_at"}}
    absurd = merged(row(telegram_date=None, is_dated=True))
    assert (absurd.message.sent_at, absurd.notices) == (at(1), {Notice.BAD_DATE})


def test_without_any_time_a_message_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput) as refused:
        merged(row(telegram_date=None, received_at=None, created_at=None))
    assert refused.value.field == "received_at"


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (("received", "published"), Status.PUBLISHED),
        (("published", "received"), Status.PUBLISHED),
        (("published", "failed"), Status.PUBLISHED),
        (("retrying", "queued"), Status.RETRYING),
        (("reprocess_pending", "published"), Status.REPROCESS_PENDING),
        ((" Published ",), Status.PUBLISHED),
    ],
)
def test_the_furthest_status_wins_whatever_arrived_last(
    statuses: Sequence[str], expected: Status
) -> None:
    rows = [row(status=status, received_at=at(n)) for n, status in enumerate(statuses)]
    assert merged(*rows).message.status is expected


def test_an_unknown_status_is_told_by_the_times_and_kept() -> None:
    found = merged(row(status="done", published_at=at(3)))
    assert (found.message.status, found.notices) == (Status.PUBLISHED, {Notice.STATUS})
    assert found.message.metadata == {"legacy": {"status": "done"}}
    assert merged(row(status=None, failed_at=at(3))).message.status is Status.FAILED
    assert merged(row(status="done")).message.status is Status.RECEIVED


def test_a_redelivery_does_not_take_a_deletion_back() -> None:
    # Broken on purpose: with the last copy's deletion alone, the message was alive again.
    gone = row(deleted_at=at(3), status="published", metadata={"deletion_reason": "spam"})
    found = merged(gone, row(received_at=at(9)))
    message = found.message
    assert (message.status, message.deleted_at) == (Status.DELETED, at(3))
    assert message.delete_reason == "spam"
    assert found.deleted_from is Status.PUBLISHED


def test_a_status_of_deleted_without_a_time_takes_that_of_the_rows_change() -> None:
    found = merged(row(status="deleted", updated_at=at(5)))
    assert (found.message.status, found.message.deleted_at) == (Status.DELETED, at(5))
    assert found.deleted_from is None


def test_words_that_are_none_of_ours_are_counted_and_kept() -> None:
    found = merged(row(source="telepathy", message_type="story", metadata=[1]))
    assert found.notices == {Notice.SOURCE, Notice.TYPE, Notice.METADATA}
    assert found.message.source is Source.UNKNOWN
    assert found.message.message_type is MessageType.CHANNEL_POST
    assert found.message.metadata == {
        "legacy": {"source": "telepathy", "message_type": "story", "metadata": [1]}
    }


def test_a_known_source_wins_over_unknown() -> None:
    found = merged(row(source="unknown"), row(source="mtproto", received_at=at(2)))
    assert found.message.source is Source.MTPROTO
    assert found.notices == frozenset()


def test_media_references_become_attachments() -> None:
    refs = [{"type": "photo", "file_id": "f1", "file_size": 5}, "f2"]
    media = merged(row(media_type="document", media_refs=refs)).message.media
    assert [(each.type, each.file_id, each.size) for each in media] == [
        ("photo", "f1", 5),
        ("document", "f2", None),
    ]
    assert merged(row(media_type="poll", media_refs=None)).message.media_type == "poll"
    odd = merged(row(media_type="photo", media_refs=[{"file_id": 5, "stars": 3}]))
    assert (odd.message.media_type, odd.notices) == ("photo", {Notice.MEDIA})
    assert odd.message.metadata["legacy"]["media_refs"] == [{"file_id": 5, "stars": 3}]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"text": "x" * 70_000}, "text"),
        ({"caption": "x" * 70_000}, "caption"),
        ({"thread_id": -1}, "thread_id"),
        ({"metadata": {"x": "y" * 300_000}}, "metadata"),
    ],
)
def test_what_the_store_cannot_hold_is_refused_by_name_in_any_copy(
    fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        merged(row(**fields))
    assert refused.value.field == field
    if field in ("text", "caption"):
        with pytest.raises(InvalidInput):
            merged(row(**fields), row(received_at=at(9)))


TIMES = st.none() | st.integers(0, 20).map(at)
ROWS = st.builds(
    row,
    id=st.uuids().map(str),
    text=st.none() | st.sampled_from(["", "a", "b", "c"]),
    caption=st.none() | st.sampled_from(["a", "b"]),
    status=st.none() | st.sampled_from([*Status, "done"]),
    source=st.none() | st.sampled_from(["bot", "unknown", "x"]),
    telegram_date=TIMES,
    received_at=st.integers(0, 2).map(at),
    created_at=st.none() | st.integers(0, 1).map(at),
    updated_at=TIMES,
    published_at=TIMES,
    deleted_at=TIMES,
    metadata=st.dictionaries(st.sampled_from("abc"), st.integers()),
)
COPIES = st.lists(ROWS, min_size=1, max_size=6, unique_by=lambda each: each.id)


@settings(max_examples=50)
@given(COPIES, st.randoms(use_true_random=False))
def test_the_order_of_rows_says_nothing(copies: list[LegacyRow], chance: random.Random) -> None:
    # Broken on purpose: without the id in the order, copies of one moment came out by chance.
    mixed = chance.sample(copies, len(copies))
    one, other = merged(*copies), merged(*mixed)
    assert attrs.asdict(one) == attrs.asdict(other)


@settings(max_examples=50)
@given(COPIES)
def test_every_content_is_kept_once(copies: list[LegacyRow]) -> None:
    found = merged(*copies)
    contents = [(each.text, each.caption) for each in found.earlier]
    contents.append((found.message.text, found.message.caption))
    assert len(contents) == len(set(contents))
    assert set(contents) == {(each.text or "", each.caption) for each in copies}


@settings(max_examples=50)
@given(COPIES)
def test_a_deletion_and_its_status_are_there_together(copies: list[LegacyRow]) -> None:
    message = merged(*copies).message
    assert (message.status is Status.DELETED) == (message.deleted_at is not None)
    told = any(each.deleted_at or each.status == "deleted" for each in copies)
    assert told == (message.deleted_at is not None)


@settings(max_examples=50)
@given(COPIES, ROWS)
def test_one_more_copy_takes_nothing_away(copies: list[LegacyRow], more: LegacyRow) -> None:
    before, after = merged(*copies), merged(*copies, more)
    assert after.message.sent_at <= before.message.sent_at or not any(
        each.telegram_date for each in copies
    )
    assert before.message.deleted_at is None or after.message.deleted_at is not None
    assert before.message.metadata.keys() <= after.message.metadata.keys() | {"legacy"}
