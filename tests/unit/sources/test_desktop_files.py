"""Files: order of keys, truncation, foreign formats, bad messages, both policies, memory."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exports import channel, post

from telegram_hybrid.errors import InvalidFile, InvalidInput
from telegram_hybrid.model import Message
from telegram_hybrid.sources import Reader, open_source

Write = Callable[..., Path]


def read(path: Path) -> list[Message]:
    with open_source(path) as reader:
        return list(reader)


def drain(reader: Reader) -> tuple[list[Message], InvalidInput | None]:
    """Return the messages before the first error, and the error."""
    messages: list[Message] = []
    try:
        for message in reader:
            messages.append(message)  # noqa: PERF402  (what came before the error counts)
    except InvalidInput as error:
        return messages, error
    return messages, None


def test_the_id_and_type_of_a_chat_may_follow_its_messages(write: Write) -> None:
    chat = {"messages": [post(1), post(2)], "name": "Late", "type": "private_channel", "id": 55}
    with open_source(write(chat)) as reader:
        assert [m.channel_id for m in reader] == [-1000000000055] * 2
        assert [c.title for c in reader.channels] == ["Late"]


def test_late_headers_are_told_apart_in_an_account_with_left_chats(write: Write) -> None:
    def late(chat_id: int, kind: str) -> dict[str, Any]:
        return {"messages": [post(1)], "type": kind, "id": chat_id, "name": f"chat {chat_id}"}

    account = {
        "about": "x",
        "personal_information": {"user_id": 5, "bio": ["a", {"b": 1}]},
        "left_chats": {"list": [late(3, "private_group")], "about": "left"},
        "chats": {"list": [late(1, "personal_chat"), late(2, "public_supergroup")]},
    }
    with open_source(write(account)) as reader:
        assert [m.channel_id for m in reader] == [-3, 1, -1000000000002]
        assert {c.channel_id: c.title for c in reader.channels} == {
            -3: "chat 3",
            1: "chat 1",
            -1000000000002: "chat 2",
        }
        assert reader.report.skipped == {
            "section 'personal_information', which holds no messages": 1
        }


@pytest.mark.parametrize(
    ("kind", "marked"),
    [
        ("public_channel", -1000000000077),
        ("private_supergroup", -1000000000077),
        ("private_group", -77),
        ("personal_chat", 77),
        ("bot_chat", 77),
        ("saved_messages", 77),
    ],
)
def test_a_bare_id_is_marked_by_the_type_of_the_chat(write: Write, kind: str, marked: int) -> None:
    assert read(write(channel(post(), type=kind, id=77)))[0].channel_id == marked


def test_a_marked_id_is_kept(write: Write) -> None:
    assert read(write(channel(post(), id=-1001649127710)))[0].channel_id == -1001649127710


def test_a_late_name_and_a_chat_without_messages_become_channels(write: Write) -> None:
    empty = channel(id=5, name="Empty")
    late = {"type": "public_channel", "id": 6, "messages": [post()], "name": "Late"}
    with open_source(write({"chats": {"list": [empty, late]}})) as reader:
        assert len(list(reader)) == 1
    assert {item.channel_id: item.title for item in reader.channels} == {
        -1000000000005: "Empty",
        -1000000000006: "Late",
    }


def test_a_break_before_a_late_header_is_a_truncation(write: Write) -> None:
    whole = json.dumps({"messages": [post(1), post(2)], "id": 5, "type": "public_channel"})
    cut = whole[: whole.index('"type": "public_channel"')]
    messages, error = drain(open_source(write(cut.encode())))
    assert messages == []
    assert isinstance(error, InvalidFile)


def test_a_break_after_late_headers_still_yields_what_came_before(write: Write) -> None:
    late = {"messages": [post(1)], "id": 5, "type": "public_channel"}
    whole = json.dumps({"chats": [late, channel(post(2), post(3))]})
    messages, error = drain(open_source(write(whole[:-40].encode())))
    assert [m.message_id for m in messages] == [1, 2]
    assert "truncated" in str(error)


def test_a_chat_of_unknown_type_is_refused_naming_the_type(write: Write) -> None:
    with pytest.raises(InvalidFile, match="type: 'secret' is none of") as caught:
        read(write(channel(post(), type="secret")))
    assert caught.value.field == "type"


def test_everything_before_a_truncation_is_yielded(write: Write) -> None:
    whole = json.dumps(channel(*[post(n, text="x" * 500) for n in range(400)])).encode()
    cut = whole[: whole.index(b'"id": 124,') + 30]
    messages, error = drain(open_source(write(cut)))
    assert [m.message_id for m in messages] == list(range(124))
    assert isinstance(error, InvalidFile)
    assert f"truncated at byte {len(cut):,} after messages[123]" in str(error)
    assert "result.json" in str(error)


@pytest.mark.parametrize("offset", [70_000, 300, 131_000])
def test_a_syntax_error_is_located_to_the_byte(write: Write, offset: int) -> None:
    whole = json.dumps(channel(*[post(n, text='"\\\u00e9' * 80) for n in range(400)])).encode()
    comma = whole.index(b', "date"', offset)
    broken = whole[:comma] + b"?" + whole[comma + 1 :]
    messages, error = drain(open_source(write(broken)))
    assert len(messages) == whole[:comma].count(b'"id"') - 2  # the chat's, and the broken one's
    assert f"not JSON at byte {comma:,}" in str(error)


def test_messages_before_trailing_garbage_are_yielded(write: Write) -> None:
    messages, error = drain(open_source(write(json.dumps(channel(post())).encode() + b" oops")))
    assert len(messages) == 1
    assert "trailing garbage" in str(error)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b" \n\n ", "is empty"),
        (b"hello", "is not JSON"),
        (b"[1, 2]", "is not"),
        (b'"text"', "is not"),
        (b'{"a": 1}', "is not a Telegram Desktop export"),
        (b'{"messages": 3}', "expected a list"),
        (b'{"chats": {"list": [3]}}', "expected an object"),
        (bytes(range(256)) * 9, "is not JSON"),
        (gzip.compress(b"{}", mtime=0), "gzip-compressed; unpack it"),
        (b"PK\x03\x04rest", "zip"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
        (b"<!DOCTYPE html>", "HTML"),
        (b'{"messages": [{"text": "\xff"}]}', "not JSON at byte 24"),
        (b"[" * 100_000, "is not"),
        (b'{"messages": [' + b"9" * 5_000 + b"]}", "is not JSON at byte"),
        (b'{"messages": [1e' + b"9" * 30 + b"]}", "is not JSON at byte"),
        (b'{"messages": [NaN]}', "is not JSON at byte 14"),
    ],
)
def test_what_is_no_export_is_refused_in_one_sentence(
    write: Write, content: bytes, problem: str
) -> None:
    with pytest.raises(InvalidFile) as caught:
        read(write(content))
    assert problem in str(caught.value)
    assert "result.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="does not exist"):
        open_source(tmp_path / "none.json")
    with pytest.raises(InvalidFile, match="is a directory"):
        open_source(tmp_path)
    with pytest.raises(InvalidFile, match="cannot be read"):
        open_source("bad\0name")


@pytest.mark.parametrize(
    "bomb",
    [
        b'{"name":"x","type":"public_channel","id":1,"messages":[{"id":1,"x":' + b"[" * 10**6,
        b'{"about":' + b'{"a":' * 10**6,
        b'{"name":' + b"[" * 10**6,
    ],
)
def test_deep_nesting_is_a_bounded_error(write: Write, bomb: bytes) -> None:
    with pytest.raises(InvalidFile, match="nested deeper than 64 levels"):
        read(write(bomb))


@pytest.mark.parametrize("content", [b'1","' * 500_000, b"1" * 2_000_000])
def test_one_endless_message_is_refused_before_it_fills_the_memory(
    write: Write, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telegram_hybrid.sources.events.MAX_ITEM", 1_000_000)
    head = b'{"name":"x","type":"public_channel","id":1,"messages":[{"id":1,"x":["'
    with pytest.raises(InvalidFile, match="an item of more than 1,000,000 bytes"):
        read(write(head + content))


BAD = [
    ({"id": 2**63}, "id", "not a Telegram message id"),
    ({"id": "7"}, "id", "expected an integer"),
    ({"id": None}, "id", "missing"),
    ({"id": True}, "id", "expected an integer"),
    ({"text": "a\0b"}, "text", "NUL character at position 1"),
    ({"text": "a\ud800b"}, "text", "lone surrogate at position 1"),
    ({"text": "\ud83d\ude00 \udc00"}, "text", "lone surrogate at position 2"),
    ({"text": "x" * 5_000_000}, "text", "5,000,000 characters"),
    ({"text": 5}, "text", "expected a string or a list"),
    ({"text": [5]}, "text[0]", "expected a string or an object"),
    ({"text": [{"type": "bold"}]}, "text[0].text", "expected a string"),
    ({"text": [{"type": 3, "text": "x"}]}, "text[0].type", "expected a string"),
    (
        {"text": [{"type": "text_link", "text": "x", "href": 1}]},
        "text[0].href",
        "expected a string",
    ),
    ({"date_unixtime": None, "date": "yesterday"}, "date", "is not a date"),
    ({"date_unixtime": None, "date": "2024-02-30T10:00:00"}, "date", "is not a date"),
    ({"date_unixtime": None, "date": 7}, "date", "is not a date"),
    ({"date_unixtime": None, "date": None}, "date", "missing"),
    ({"date_unixtime": "99999999999999999999"}, "date_unixtime", "is not a time"),
    ({"date_unixtime": "soon"}, "date_unixtime", "is not a time"),
    ({"date_unixtime": "-5"}, "date", "outside 1970 to 2100"),
    ({"date_unixtime": "9" * 5_000}, "date_unixtime", "is not a time"),
    ({"edited": [1], "edited_unixtime": None}, "edited", "is not a date"),
    ({"from_id": "robot7"}, "from_id", "is no peer"),
    ({"from_id": ["user7"]}, "from_id", "is no peer"),
    ({"from": 7}, "from", "expected a string"),
    ({"type": "letter"}, "type", "neither 'message' nor 'service'"),
    ({"reply_to_message_id": "x"}, "reply_to_message_id", "expected an integer"),
    ({"reply_to_message_id": [1]}, "reply_to_message_id", "expected an integer"),
    ({"photo": 5}, "photo", "expected a string"),
    ({"photo": "p.jpg", "width": "wide"}, "width", "expected an integer"),
    ({"file": "p.bin", "file_size": -1}, "file_size", "outside"),
    ({"file": "p.bin", "media_type": []}, "media_type", "expected a string"),
    ({"author": "a\0"}, "author", "NUL"),
    ({"poll": {"question": "x" * 300_000}}, "metadata", "bytes of JSON"),
]


@pytest.mark.parametrize(("fields", "field", "problem"), BAD)
def test_a_bad_message_is_refused_with_file_place_and_field(
    write: Write, fields: dict[str, Any], field: str, problem: str
) -> None:
    bad = {key: value for key, value in post(2, **fields).items() if value is not None}
    path = write(channel(post(1), bad, post(3)))
    messages, error = drain(open_source(path))
    assert [m.message_id for m in messages] == [1]
    assert error is not None
    assert error.field == field
    assert problem in error.problem
    assert error.where == f"{path}: messages[1]"
    assert len(str(error)) < 1_000


def test_skipping_counts_bad_messages_by_reason_and_keeps_the_first_hundred(write: Write) -> None:
    bad = [post(n, text="\0") for n in range(150)]
    path = write(channel(post(1), *bad, post(2**63), 7, post(2)))
    with open_source(path, on_error="skip") as reader:
        assert [m.message_id for m in reader] == [1, 2]
    report = reader.report
    assert report.messages_read == 2
    assert report.skipped == {"invalid text": 150, "invalid id": 1, "invalid message": 1}
    assert len(report.examples) == 100
    assert report.examples[0].where == f"{path}: messages[1]"
    assert "NUL" in str(report.examples[0].detail)


def test_what_desktop_exports_without_content_is_counted_not_refused(write: Write) -> None:
    chat = channel(post(-999_999_990), {"id": 5, "type": "unsupported"}, post(6))
    with open_source(write(chat)) as reader:
        assert [m.message_id for m in reader] == [6]
    assert reader.report.skipped == {
        "unsupported message, exported without content": 1,
        "message of the basic group before it became this supergroup": 1,
    }


def test_a_control_character_as_desktop_escapes_it_is_read(write: Write) -> None:
    # Telegram Desktop writes U+001F as \x1F, which no JSON parser takes.
    text = rb"left\x1Fright \\x41 and \\\x0B"
    data = json.dumps(channel(post(text="HERE"))).encode().replace(b"HERE", text)
    assert read(write(data))[0].text == "left\x1fright \\x41 and \\\x0b"


def test_escapes_survive_every_position_of_a_chunk_border(write: Write) -> None:
    # Broken on purpose: without the reading on in _Chunks.raw, this fails.
    text = "\ud83d\ude00\\\x1f" * 8
    for pad in range(70):
        data = json.dumps(channel(post(text="y" * (65_536 - 200 + pad) + text))).encode()
        (message,) = read(write(data.replace(b"\\u001f", b"\\x1F")))
        assert message.text.endswith("\U0001f600\\\x1f" * 8)


def test_numbers_of_metadata_become_plain_json_numbers(write: Write) -> None:
    place = (
        b'{"latitude": 52.516275, "longitude": 13.0, "huge": 1e999, "big": 36893488147419103232}'
    )
    data = json.dumps(channel(post(location_information="HERE"))).encode()
    (message,) = read(write(data.replace(b'"HERE"', place)))
    assert message.media_type == "location"
    assert message.metadata["location_information"] == {
        "latitude": 52.516275,
        "longitude": 13.0,
        "huge": "1E+999",
        "big": 36893488147419103232,
    }


def test_progress_reaches_the_size_of_the_file(write: Write) -> None:
    path = write(channel(*[post(n) for n in range(2_000)]))
    with open_source(path) as reader:
        assert reader.size == path.stat().st_size
        positions = [reader.position for _ in reader]
    assert positions == sorted(positions)
    assert positions[0] < reader.size / 2
    assert reader.position == reader.size


def test_leaving_early_closes_the_file(write: Write) -> None:
    with open_source(write(channel(post(1), post(2)))) as reader:
        next(reader)
    assert list(reader) == []


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    # Broken on purpose: with the messages kept in a list, the second peak is 4 times the first.
    raw = json.dumps(post(0)).replace('"id": 0', '"id": %d')

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.json"
        with path.open("w") as file:
            file.write('{"name": "Big", "type": "public_channel", "id": 77, "messages": [')
            file.write(",".join(raw % number for number in range(count)))
            file.write("]}")
        with open_source(path) as reader:
            tracemalloc.start()
            try:
                assert sum(1 for _ in reader) == count
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    peak(10)
    assert peak(10_000) < 1.2 * peak(1_000)


def test_a_wrong_policy_is_refused(write: Write) -> None:
    with pytest.raises(InvalidInput, match="on_error"):
        open_source(write(channel(post())), on_error="ignore")  # type: ignore[arg-type]


def test_the_parsers_words_are_shown_as_text(write: Write) -> None:
    # Broken on purpose: ijson's C backend speaks in bytes, shown as b"..." if a quote is in them.
    with pytest.raises(InvalidInput) as refused:
        list(read(write(b"\xff'\x00")))
    assert 'b"' not in str(refused.value)
    assert "b'" not in str(refused.value)
