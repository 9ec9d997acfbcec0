"""Bot API updates: what becomes a message, what is skipped, what is refused; and their files."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from telegram_hybrid.errors import InvalidFile, InvalidInput
from telegram_hybrid.model import Channel, Media, Message, MessageType
from telegram_hybrid.sources import Skipped, open_source
from telegram_hybrid.sources.botapi import from_message, from_update

Write = Callable[..., Path]
GROUP = {"id": -1001, "type": "supergroup", "title": "Talk", "username": "talk"}
ANN = {"id": 5, "is_bot": False, "first_name": "Ann", "last_name": "Lee", "username": "ann"}


def raw(**fields: Any) -> dict[str, Any]:
    return {"message_id": 7, "date": 1714564800, "chat": GROUP, "from": ANN, **fields}


def update(number: int = 7, **fields: Any) -> dict[str, Any]:
    return {"update_id": number, "message": raw(message_id=number, text="hi", **fields)}


def test_an_update_of_any_sort_is_told_apart() -> None:
    for kind in ("message", "edited_message", "channel_post", "edited_channel_post"):
        message = from_update({"update_id": 1, kind: raw(text="hi", edit_date=1714564860)})
        assert isinstance(message, Message)
        post = kind.endswith("post")
        assert message.message_type is (MessageType.CHANNEL_POST if post else MessageType.MESSAGE)
        assert message.sent_at == datetime(2024, 5, 1, 12, tzinfo=UTC)
        assert message.edited_at == datetime(2024, 5, 1, 12, 1, tzinfo=UTC)
    assert from_update({"update_id": 1, "poll": {"id": "1"}}) == Skipped("update kind 'poll'")
    assert from_update(b'{"update_id": 1, "business_message": {}}') == Skipped(
        "update kind 'business_message'"
    )


def test_all_shared_updates_are_messages_or_counted_by_kind(shapes: Path) -> None:
    with open_source(shapes / "aiogram_3.31.0_updates_MIT.jsonl") as reader:
        messages = list(reader)
    assert reader.kind == "bot_api"
    assert [message.text for message in messages] == ["test", "edited test", "test", "test"]
    assert reader.report.messages_read == 4
    assert sum(reader.report.skipped.values()) == 24
    assert reader.report.skipped["update kind 'callback_query'"] == 2
    assert reader.position == reader.size


def test_people_chats_replies_topics_and_albums_find_their_fields() -> None:
    message = from_message(
        raw(
            text="hi",
            reply_to_message={"message_id": 3, "text": "before"},
            message_thread_id=2,
            is_topic_message=True,
            media_group_id="13582909582334512",
            forward_origin={"type": "hidden_user", "sender_user_name": "X", "date": 1},
        )
    )
    assert (message.sender_id, message.sender_name) == (5, "Ann Lee")
    assert (message.reply_to_id, message.thread_id) == (3, 2)
    assert message.grouped_id == 13582909582334512
    assert message.metadata == {
        "is_topic_message": True,
        "from": {"username": "ann"},
        "forward_origin": {"type": "hidden_user", "sender_user_name": "X", "date": 1},
    }


def test_a_reply_to_an_automatic_forward_is_a_comment_on_the_post() -> None:
    replied = {"message_id": 3, "is_automatic_forward": True}
    message = from_message(raw(text="hi", reply_to_message=replied))
    assert message.message_type is MessageType.CHANNEL_POST_COMMENT


def test_a_chat_that_speaks_is_the_sender() -> None:
    stand_in = {"id": 1087968824, "is_bot": True, "first_name": "Group"}
    message = from_message(raw(text="hi", sender_chat=GROUP, **{"from": stand_in}))
    assert (message.sender_id, message.sender_name) == (-1001, "Talk")
    assert message.metadata == {"from": stand_in}


def test_the_largest_photo_is_the_media_and_the_other_sizes_are_kept() -> None:
    small = {"file_id": "s", "file_unique_id": "us", "width": 90, "height": 51}
    large = {"file_id": "l", "file_unique_id": "ul", "width": 1280, "height": 720, "file_size": 9}
    message = from_message(raw(photo=[large, small], caption="look"))
    assert message.media == (Media(type="photo", file_id="l", width=1280, height=720, size=9),)
    assert message.metadata["photo"] == {"file_unique_id": "ul", "sizes": [small]}
    assert (message.text, message.caption) == ("", "look")


def test_attachments_that_are_no_file_keep_their_details() -> None:
    place = {"latitude": 1.5, "longitude": 2.5}
    venue = {"location": place, "title": "Cafe", "address": "Street 1"}
    message = from_message(raw(venue=venue, location=place))
    assert message.media_type == "venue"
    assert message.metadata["venue"] == venue
    assert "location" not in message.metadata
    assert from_message(raw(video_note={"file_id": "v", "length": 240})).media[0].height == 240


@pytest.mark.parametrize(
    ("fields", "action"),
    [
        ({"new_chat_members": [ANN]}, "invite_members"),
        ({"migrate_to_chat_id": -1002}, "migrate_to_supergroup"),
        ({"forum_topic_created": {"name": "Oil", "icon_color": 1}}, "topic_created"),
        ({"video_chat_started": {}}, "video_chat_started"),
    ],
)
def test_service_messages_carry_their_action(fields: dict[str, Any], action: str) -> None:
    message = from_message(raw(**fields))
    assert message.message_type is MessageType.SERVICE
    assert message.metadata == {"action": action, "from": {"username": "ann"}, **fields}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"message_id": 2**63}, "message_id"),
    ({"message_id": None}, "message_id"),
    ({"date": "soon"}, "date"),
    ({"date": 10**20}, "date"),
    ({"edit_date": 1.5}, "edit_date"),
    ({"chat": None}, "chat"),
    ({"chat": {"id": 0}}, "chat.id"),
    ({"chat": {"id": "x"}}, "chat.id"),
    ({"text": "a\0"}, "text"),
    ({"text": 5}, "text"),
    ({"text": "x" * 5_000_000}, "text"),
    ({"caption": "\0"}, "caption"),
    ({"from": 5}, "from"),
    ({"from": {"id": "5"}}, "from.id"),
    ({"entities": 5}, "entities"),
    ({"entities": [5]}, "entities[0]"),
    ({"entities": [{"type": "bold", "offset": -1, "length": 2}]}, "entities[0].offset"),
    ({"entities": [{"type": "bold", "length": 2}]}, "entities[0].offset"),
    ({"photo": []}, "photo"),
    ({"photo": [{"file_id": 7}]}, "photo[0].file_id"),
    ({"video": {"file_id": "v", "duration": "7"}}, "video.duration"),
    ({"document": {"file_id": "v", "file_size": -7}}, "document.file_size"),
    ({"reply_to_message": 5}, "reply_to_message"),
    ({"reply_to_message": {"message_id": "5"}}, "reply_to_message.message_id"),
    ({"new_thing": "\0"}, "new_thing"),
]


@pytest.mark.parametrize(("fields", "field"), BAD)
def test_a_bad_message_is_refused_naming_the_bot_apis_field(
    fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_update({"update_id": 1, "message": raw(**fields)})
    assert caught.value.field == field


@pytest.mark.parametrize(
    "bad",
    [b"", b"nonsense", b"[]", b"7", b"{}", b'{"update_id":1,"a":1,"b":2}', b"[" * 100_000, b"\xff"],
)
def test_what_is_no_update_is_refused(bad: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_update(bad)
    assert caught.value.field == "update"


@pytest.mark.parametrize(
    "layout",
    [
        lambda updates: "".join(json.dumps(item) + "\n" for item in updates).encode(),
        lambda updates: "\r\n\n".join(json.dumps(item) for item in updates).encode(),
        lambda updates: json.dumps(updates).encode(),
        lambda updates: json.dumps(updates, indent=1).encode(),
        lambda updates: json.dumps({"ok": True, "result": updates}).encode(),
        lambda updates: json.dumps({"ok": True, "result": updates}, indent=1).encode(),
    ],
)
def test_updates_are_read_from_lines_lists_and_responses(
    write: Write, layout: Callable[[list[Any]], bytes]
) -> None:
    updates = [update(n, caption="y" * 700) for n in range(300)]
    with open_source(write(layout(updates), "updates.json")) as reader:
        assert [message.message_id for message in reader] == list(range(300))
    assert reader.channels == (Channel(channel_id=-1001, title="Talk", username="talk"),)


def test_a_single_update_may_be_spread_over_lines(write: Write) -> None:
    with open_source(write(json.dumps(update(), indent=2).encode())) as reader:
        assert next(reader).message_id == 7


def test_a_bad_line_is_named_with_its_byte_and_the_next_can_be_read(write: Write) -> None:
    good = json.dumps(update()).encode() + b"\n"
    path = write(good + b'{"update_id": }\n' + good, "updates.jsonl")
    with open_source(path) as reader:
        assert next(reader).message_id == 7
        with pytest.raises(InvalidInput) as caught:
            next(reader)
    assert caught.value.where == f"{path}: line 2"
    assert f"is not JSON at byte {len(good) + 14}" in str(caught.value)
    with open_source(path, on_error="skip") as reader:
        assert len(list(reader)) == 2
    assert reader.report.skipped == {"invalid update": 1}


def test_a_lone_surrogate_in_a_line_names_the_field(write: Write) -> None:
    line = json.dumps(update()).replace('"hi"', r'"a\ud800b"')
    with pytest.raises(InvalidInput, match="lone surrogate at position 1") as caught:
        list(open_source(write(line.encode() + b"\n")))
    assert caught.value.field == "text"


NO_JSON = [
    (b'"a\xff"', "is not UTF-8 at byte"),
    (b"NaN", "NaN is no JSON number"),
    (b"[" * 20_000 + b"]" * 20_000, "nested too deeply"),
]


@pytest.mark.parametrize(("text", "problem"), NO_JSON)
def test_a_first_line_that_is_no_json_says_why(write: Write, text: bytes, problem: str) -> None:
    good = json.dumps(update()).encode() + b"\n"
    path = write(good.replace(b'"hi"', text) + good, "updates.jsonl")
    with open_source(path, on_error="skip") as reader:
        assert len(list(reader)) == 1
    assert problem in str(reader.report.examples[0].detail)


@pytest.mark.parametrize(("text", "problem"), NO_JSON)
def test_a_line_that_is_no_json_says_why(write: Write, text: bytes, problem: str) -> None:
    good = json.dumps(update()).encode() + b"\n"
    path = write(good + good.replace(b'"hi"', text), "updates.jsonl")
    with open_source(path, on_error="skip") as reader:
        assert len(list(reader)) == 1
    assert problem in str(reader.report.examples[0].detail)


def test_a_number_beyond_floats_is_kept_as_its_digits() -> None:
    raw_update = json.dumps(update(extra="HERE")).replace('"HERE"', "1e999")
    message = from_update(raw_update)
    assert isinstance(message, Message)
    assert message.metadata["extra"] == "1e999"


def test_a_last_line_cut_short_is_a_truncation(write: Write) -> None:
    good = json.dumps(update()).encode() + b"\n"
    content = good * 2 + good[:50]
    reader = open_source(write(content), on_error="skip")
    assert [next(reader).message_id, next(reader).message_id] == [7, 7]
    with pytest.raises(InvalidFile, match=f"truncated at byte {len(content)} after line 2"):
        next(reader)


def test_an_answer_without_updates_is_refused(write: Write) -> None:
    with pytest.raises(InvalidFile, match="holds no Bot API updates"):
        list(open_source(write({"ok": False, "result": {"a": [1]}})))
    with pytest.raises(InvalidFile, match="holds no Bot API updates: 'Unauthorized'"):
        list(open_source(write({"ok": False, "description": "Unauthorized"})))
    assert list(open_source(write({"ok": True, "result": []}))) == []
