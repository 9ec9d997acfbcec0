"""The same post by Desktop export, Bot API and Telethon is one message, not an edit of itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from exports import channel, post

from telegram_hybrid.model import Message
from telegram_hybrid.sources import open_source
from telegram_hybrid.sources.botapi import from_update
from telegram_hybrid.sources.telethon import from_message

types = pytest.importorskip("telethon.tl.types", reason="Telethon is not installed")

DATE = datetime(2024, 5, 1, 12, tzinfo=UTC)
EDITED = datetime(2024, 5, 1, 12, 5, tzinfo=UTC)
TEXT = "\U0001f680 BTC: long @desk see #signals or this link"
RUNS = [
    {"type": "plain", "text": "\U0001f680 "},
    {"type": "bold", "text": "BTC"},
    {"type": "plain", "text": ": long "},
    {"type": "mention", "text": "@desk"},
    {"type": "plain", "text": " see "},
    {"type": "hashtag", "text": "#signals"},
    {"type": "plain", "text": " or "},
    {"type": "text_link", "text": "this link", "href": "https://example.com/a"},
]
ENTITIES = [
    {"type": "bold", "offset": 3, "length": 3},
    {"type": "mention", "offset": 13, "length": 5},
    {"type": "hashtag", "offset": 23, "length": 8},
    {"type": "text_link", "offset": 35, "length": 9, "url": "https://example.com/a"},
]


def document(*attributes: Any, mime_type: str) -> Any:
    return types.MessageMediaDocument(
        document=types.Document(
            id=9,
            access_hash=1,
            file_reference=b"x",
            date=DATE,
            mime_type=mime_type,
            size=1234,
            dc_id=2,
            attributes=list(attributes),
        )
    )


def photo() -> Any:
    sizes = [
        types.PhotoStrippedSize(type="i", bytes=b"1"),
        types.PhotoSize(type="m", w=320, h=180, size=99),
        types.PhotoSizeProgressive(type="y", w=1280, h=720, sizes=[10, 1234]),
    ]
    return types.MessageMediaPhoto(
        photo=types.Photo(id=9, access_hash=1, file_reference=b"x", date=DATE, sizes=sizes, dc_id=2)
    )


FILE = {"file_id": "AgAC", "file_unique_id": "Ag"}
SIZED = {"file_size": 1234, "mime_type": "video/mp4"}
#: kind of media, its Desktop keys, its Bot API keys, its Telethon media, whether text is caption
MEDIA: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[[], Any], bool]] = {
    "none": ({}, {}, lambda: None, False),
    "photo": (
        {"photo": "photos/1.jpg", "photo_file_size": 1234, "width": 1280, "height": 720},
        {
            "photo": [
                {**FILE, "width": 320, "height": 180, "file_size": 99},
                {**FILE, "width": 1280, "height": 720, "file_size": 1234},
            ]
        },
        photo,
        True,
    ),
    "video": (
        {
            **SIZED,
            "file": "v.mp4",
            "media_type": "video_file",
            "duration_seconds": 7,
            "width": 640,
            "height": 360,
        },
        {"video": {**FILE, **SIZED, "duration": 7, "width": 640, "height": 360}},
        lambda: document(
            types.DocumentAttributeVideo(duration=7, w=640, h=360), mime_type="video/mp4"
        ),
        True,
    ),
    "animation": (
        {**SIZED, "file": "v.mp4", "media_type": "animation"},
        {"animation": {**FILE, **SIZED}, "document": {**FILE, **SIZED}},
        lambda: document(types.DocumentAttributeAnimated(), mime_type="video/mp4"),
        True,
    ),
    "document": (
        {"file": "r.pdf", "file_name": "r.pdf", "file_size": 1234, "mime_type": "application/pdf"},
        {
            "document": {
                **FILE,
                "file_name": "r.pdf",
                "file_size": 1234,
                "mime_type": "application/pdf",
            }
        },
        lambda: document(
            types.DocumentAttributeFilename(file_name="r.pdf"), mime_type="application/pdf"
        ),
        True,
    ),
    "voice": (
        {
            "file": "v.ogg",
            "media_type": "voice_message",
            "file_size": 1234,
            "mime_type": "audio/ogg",
            "duration_seconds": 3,
        },
        {"voice": {**FILE, "file_size": 1234, "mime_type": "audio/ogg", "duration": 3}},
        lambda: document(
            types.DocumentAttributeAudio(duration=3, voice=True), mime_type="audio/ogg"
        ),
        True,
    ),
    "sticker": (
        {
            "file": "s.webp",
            "media_type": "sticker",
            "sticker_emoji": "x",
            "file_size": 1234,
            "mime_type": "image/webp",
            "width": 512,
            "height": 512,
        },
        {
            "sticker": {
                **FILE,
                "file_size": 1234,
                "mime_type": "image/webp",
                "width": 512,
                "height": 512,
            }
        },
        lambda: document(
            types.DocumentAttributeImageSize(w=512, h=512),
            types.DocumentAttributeSticker(alt="x", stickerset=types.InputStickerSetEmpty()),
            mime_type="image/webp",
        ),
        False,
    ),
    "location": (
        {"location_information": {"latitude": 1.5, "longitude": 2.5}},
        {"location": {"latitude": 1.5, "longitude": 2.5}},
        lambda: types.MessageMediaGeo(geo=types.GeoPoint(long=2.5, lat=1.5, access_hash=1)),
        False,
    ),
}


def desktop(write: Callable[..., Path], fields: dict[str, Any]) -> Message:
    raw = post(
        42,
        text=[run["text"] if run["type"] == "plain" else run for run in RUNS],
        text_entities=RUNS,
        edited="2024-05-01T12:05:00",
        edited_unixtime="1714565100",
        from_id="channel1234567890",
        reply_to_message_id=40,
        **{"from": "Signals"},
        **fields,
    )
    with open_source(write(channel(raw))) as reader:
        (message,) = reader
    return message


def bot(fields: dict[str, Any], *, captioned: bool) -> Message:
    chat = {"id": -1001234567890, "type": "channel", "title": "Signals", "username": "signals"}
    words = (
        {"caption": TEXT, "caption_entities": ENTITIES}
        if captioned
        else {"text": TEXT, "entities": ENTITIES}
    )
    message = from_update(
        {
            "update_id": 1,
            "edited_channel_post": {
                "message_id": 42,
                "date": 1714564800,
                "edit_date": 1714565100,
                "chat": chat,
                "sender_chat": chat,
                "reply_to_message": {"message_id": 40, "date": 1, "chat": chat, "text": "before"},
                **words,
                **fields,
            },
        }
    )
    assert isinstance(message, Message)
    return message


def telethon(media: Any) -> Message:
    return from_message(
        types.Message(
            id=42,
            peer_id=types.PeerChannel(1234567890),
            date=DATE,
            edit_date=EDITED,
            message=TEXT,
            post=True,
            media=media,
            reply_to=types.MessageReplyHeader(reply_to_msg_id=40),
            entities=[
                types.MessageEntityBold(3, 3),
                types.MessageEntityMention(13, 5),
                types.MessageEntityHashtag(23, 8),
                types.MessageEntityTextUrl(35, 9, url="https://example.com/a"),
            ],
        )
    )


@pytest.mark.parametrize("kind", MEDIA)
def test_a_post_is_the_same_through_all_three_doors(write: Callable[..., Path], kind: str) -> None:
    # Broken on purpose: with the text of media left in `text` by any one source, this fails.
    desktop_fields, bot_fields, media, captioned = MEDIA[kind]
    messages = [
        desktop(write, desktop_fields),
        bot(bot_fields, captioned=captioned),
        telethon(media()),
    ]
    first = messages[0]
    assert (first.text, first.caption) == (("", TEXT) if captioned else (TEXT, None))
    assert [entity.type for entity in first.entities] == ["bold", "mention", "hashtag", "text_link"]
    for other in messages[1:]:
        for field in (
            "key",
            "sent_at",
            "edited_at",
            "text",
            "caption",
            "entities",
            "message_type",
            "media_type",
            "reply_to_id",
            "sender_id",
            "thread_id",
            "grouped_id",
        ):
            assert getattr(other, field) == getattr(first, field), field
        for mine, theirs in zip(first.media, other.media, strict=True):
            for field in ("type", "name", "mime_type", "size", "width", "height", "duration"):
                assert getattr(theirs, field) == getattr(mine, field), field
    assert len({message.source for message in messages}) == 3


def test_service_messages_name_their_action_alike(write: Callable[..., Path]) -> None:
    raw = post(7, type="service", action="pin_message", message_id=40, text="")
    with open_source(write(channel(raw))) as reader:
        (exported,) = reader
    chat = {"id": -1001234567890, "type": "channel"}
    update = {
        "update_id": 1,
        "channel_post": {
            "message_id": 7,
            "date": 1714564800,
            "chat": chat,
            "pinned_message": {"message_id": 40, "date": 1, "chat": chat},
        },
    }
    heard = from_message(
        types.MessageService(
            id=7,
            peer_id=types.PeerChannel(1234567890),
            date=DATE,
            action=types.MessageActionPinMessage(),
            post=True,
        )
    )
    botted = from_update(update)
    assert isinstance(botted, Message)
    assert {m.message_type for m in (exported, heard, botted)} == {"service"}
    assert {m.metadata["action"] for m in (exported, heard, botted)} == {"pin_message"}
    assert exported.metadata == botted.metadata
