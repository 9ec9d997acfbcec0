"""Every shared sample imports, or is refused with file, place and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from telegram_hybrid.errors import InvalidFile
from telegram_hybrid.model import Entity, Media, Message, MessageType
from telegram_hybrid.sources import open_source


def read(path: Path) -> list[Message]:
    with open_source(path) as reader:
        return list(reader)


def test_all_sixteen_exports_give_15360_messages_of_16_channels(exports: list[Path]) -> None:
    keys = set()
    channels = set()
    for path in exports:
        with open_source(path) as reader:
            for message in reader:
                assert message.message_type is MessageType.CHANNEL_POST
                assert message.sender_id == message.channel_id
                keys.add(message.key)
            assert reader.position == reader.size
            assert not reader.report.skipped
            channels.update(channel.channel_id for channel in reader.channels)
    assert len(keys) == 15_360
    assert channels == {int(f"-100{path.parent.name.rpartition('_')[2]}") for path in exports}


def test_an_account_with_chats_list_keeps_entities_edits_files_and_polls(shapes: Path) -> None:
    edited, service, file, poll = read(shapes / "vorot93-json_export-result.json")
    assert edited.channel_id == -123456
    assert edited.text == "Hello family link"
    assert edited.entities == (
        Entity(type="bold", offset=6, length=7),
        Entity(type="text_link", offset=13, length=4, url="https://example.com"),
    )
    assert edited.edited_at is not None
    assert edited.edited_at.timestamp() == 1739349600
    assert edited.reply_to_id == 100
    assert set(edited.metadata) == {"reactions", "inline_bot_buttons"}
    assert service.message_type is MessageType.SERVICE
    assert service.metadata == {"action": "invite_members", "members": ["Bob"]}
    assert (service.sender_id, service.sender_name) == (12345, "Alice")
    assert file.caption == "Attached report"
    assert file.text == ""
    assert file.media == (
        Media(
            type="document",
            path="files/report.pdf",
            name="report.pdf",
            mime_type="application/pdf",
            size=12,
        ),
    )
    assert poll.media_type == "poll"
    assert poll.metadata["poll"]["question"] == "Lunch?"


def test_an_account_with_a_bare_list_of_chats_is_read(shapes: Path) -> None:
    messages = read(shapes / "telegram-export-md-result.json")
    assert [m.message_id for m in messages] == [*range(1, 14), 1]
    assert {m.channel_id for m in messages} == {-1000000000042, 7}
    assert messages[0].text == "hello everyone?"
    assert messages[0].metadata == {"text": "hello "}
    assert [m.media_type for m in messages if m.media] == [
        "photo",
        "sticker",
        "poll",
        "video_note",
        "audio",
        "document",
    ]
    assert messages[2].media[0].width == 1920
    assert messages[8].media[0].duration == 15
    # `edited` has no Unix time, but `date` beside its own shows the exporter's clock.
    assert messages[6].edited_at is not None
    assert (messages[6].edited_at - messages[6].sent_at).total_seconds() == 300


def test_messages_of_a_forum_know_their_topic(shapes: Path) -> None:
    messages = read(shapes / "tg-parser-supergroup_with_topics.json")
    assert {m.channel_id for m in messages} == {-1000987654321}
    assert [m.thread_id for m in messages] == [None, 2, 2, 4, 4, 4, None]


def test_a_chat_with_mixed_texts_forwards_and_videos_is_read(shapes: Path) -> None:
    messages = read(shapes / "tg2md-mixed-messages.json")
    assert [m.text or m.caption for m in messages] == [
        "Normal post",
        "Forwarded text",
        None,
        None,
        "Video with text",
    ]
    assert messages[1].metadata == {"forwarded_from": "Other Channel"}
    assert messages[0].sender_id == -1000000000001


def test_a_chat_without_id_is_refused_with_file_place_and_field(shapes: Path) -> None:
    path = shapes / "chat-miner-test_single_export.json"
    with pytest.raises(InvalidFile, match="the chat: id: missing") as caught:
        read(path)
    assert caught.value.field == "id"
    assert str(path) in str(caught.value)
    with open_source(path, on_error="skip") as reader:
        assert list(reader) == []
    assert reader.report.skipped == {"invalid id": 2}
