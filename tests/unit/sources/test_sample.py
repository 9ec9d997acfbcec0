"""The sample shows what a channel can hold, and stays small."""

from __future__ import annotations

from telegram_hybrid.model import Channel, MessageType
from telegram_hybrid.sources import open_source, sample_path


def test_the_sample_reads_whole_and_shows_every_kind_of_post() -> None:
    assert sample_path().stat().st_size < 60_000
    with open_source(sample_path()) as reader:
        messages = list(reader)
    assert reader.channels == (Channel(channel_id=-1002111222333, title="Harbour Street Signals"),)
    assert reader.report.messages_read == len(messages) == 57
    assert not reader.report.skipped
    assert not reader.report.assumed_timezone
    assert {message.media_type for message in messages} == {
        None,
        "document",
        "photo",
        "poll",
        "sticker",
        "venue",
        "video",
        "voice",
    }
    types = [message.message_type for message in messages]
    assert types.count(MessageType.SERVICE) == 3
    assert len({entity.type for message in messages for entity in message.entities}) >= 10
    assert any(message.edited_at for message in messages)
    assert any(message.reply_to_id for message in messages)
    assert any("forwarded_from" in message.metadata for message in messages)
    assert any(max(message.text, default="") > "\uffff" for message in messages)
    order = [(message.message_id, message.sent_at) for message in messages]
    assert order == sorted(order)
