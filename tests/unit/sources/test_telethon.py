"""Telethon's messages and events, built offline, become messages; Telethon is never imported."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Message, MessageKey, MessageType, Source
from telegram_hybrid.sources import Skipped
from telegram_hybrid.sources.telethon import Deleted, from_event, from_message

types = pytest.importorskip("telethon.tl.types", reason="Telethon is not installed")
events = pytest.importorskip("telethon.events", reason="Telethon is not installed")

DATE = datetime(2024, 5, 1, 12, tzinfo=UTC)


def build(**fields: Any) -> Any:
    given = {"id": 7, "peer_id": types.PeerChannel(1001), "date": DATE, "message": "hi", **fields}
    return types.Message(**given)


def test_a_channel_post_and_a_group_message_are_told_apart() -> None:
    post = from_message(build(post=True, post_author="Ann", views=9, grouped_id=2**60))
    assert post.key == MessageKey(-1000000001001, 7)
    assert post.message_type is MessageType.CHANNEL_POST
    assert post.source is Source.MTPROTO
    assert post.sender_id == -1000000001001
    assert post.grouped_id == 2**60
    assert post.metadata == {"post_author": "Ann", "views": 9}
    said = from_message(build(from_id=types.PeerUser(5)), source=Source.BOT)
    assert said.message_type is MessageType.MESSAGE
    assert (said.sender_id, said.source) == (5, Source.BOT)
    assert from_message(build(peer_id=types.PeerChat(9))).channel_id == -9
    assert from_message(build(peer_id=types.PeerUser(9))).channel_id == 9


def test_threads_and_replies_across_chats_are_told_apart() -> None:
    def reply(**fields: Any) -> tuple[int | None, int | None]:
        message = from_message(build(reply_to=types.MessageReplyHeader(**fields)))
        return message.reply_to_id, message.thread_id

    assert reply(reply_to_msg_id=3) == (3, None)
    assert reply(reply_to_msg_id=3, forum_topic=True) == (3, 3)
    assert reply(reply_to_msg_id=5, reply_to_top_id=3, forum_topic=True) == (5, 3)
    assert reply(reply_to_msg_id=3, reply_to_peer_id=types.PeerChannel(8)) == (None, None)


def test_a_quote_and_a_forward_stay_in_metadata_as_plain_json() -> None:
    header = types.MessageReplyHeader(reply_to_msg_id=3, quote_text="so", poll_option=b"\x01")
    forward = types.MessageFwdHeader(date=DATE, from_name="Desk", channel_post=4)
    message = from_message(build(reply_to=header, fwd_from=forward))
    assert message.metadata["reply_to"]["quote_text"] == "so"
    assert message.metadata["reply_to"]["poll_option"] == "AQ=="
    assert message.metadata["fwd_from"] == {
        "_": "MessageFwdHeader",
        "date": "2024-05-01T12:00:00+00:00",
        "from_name": "Desk",
        "channel_post": 4,
    }


def test_a_web_page_is_a_preview_and_no_media() -> None:
    page = types.MessageMediaWebPage(webpage=types.WebPageEmpty(id=1))
    message = from_message(build(media=page))
    assert (message.text, message.caption, message.media) == ("hi", None, ())
    assert message.metadata["media"]["_"] == "MessageMediaWebPage"


def test_entities_bring_their_details() -> None:
    message = from_message(
        build(
            message="0123456789",
            entities=[
                types.MessageEntityPre(0, 2, language="sql"),
                types.MessageEntityMentionName(2, 2, user_id=5),
                types.InputMessageEntityMentionName(4, 2, types.InputUser(6, 1)),
                types.MessageEntityCustomEmoji(6, 2, document_id=2**60),
                types.MessageEntityBlockquote(8, 2, collapsed=True),
                types.MessageEntityPhone(8, 2),
            ],
        )
    )
    assert [entity.type for entity in message.entities] == [
        "pre",
        "text_mention",
        "text_mention",
        "custom_emoji",
        "expandable_blockquote",
        "phone_number",
    ]
    assert [entity.user_id for entity in message.entities[1:3]] == [5, 6]
    assert message.entities[3].custom_emoji_id == str(2**60)
    assert message.metadata == {}


def test_a_service_message_carries_its_action_and_details() -> None:
    def service(action: Any) -> Message:
        return from_message(
            types.MessageService(id=7, peer_id=types.PeerChannel(1001), date=DATE, action=action)
        )

    topic = service(types.MessageActionTopicCreate(title="Oil", icon_color=1))
    assert topic.message_type is MessageType.SERVICE
    assert topic.thread_id == 7
    assert topic.metadata == {"action": "topic_created", "title": "Oil", "icon_color": 1}
    moved = service(types.MessageActionChannelMigrateFrom(title="Old", chat_id=9))
    assert moved.metadata == {"action": "migrate_from_group", "title": "Old", "chat_id": 9}


def test_every_media_of_telethon_is_named() -> None:
    named = {name for name in dir(types) if name.startswith("MessageMedia")}
    from telegram_hybrid.sources.telethon_media import _OTHERS

    files = {"MessageMediaPhoto", "MessageMediaDocument"}
    assert named - set(_OTHERS) - files == {"MessageMediaEmpty", "MessageMediaWebPage"}


def test_an_expired_photo_is_still_a_photo() -> None:
    message = from_message(build(media=types.MessageMediaPhoto(ttl_seconds=5)))
    assert message.media_type == "photo"
    assert message.caption == "hi"


def test_events_become_messages_deletions_or_skips() -> None:
    message = build(post=True)
    new = from_event(events.NewMessage.Event(message))
    edited = from_event(events.MessageEdited.Event(message))
    assert isinstance(new, Message)
    assert new == edited
    peer = types.PeerChannel(1001)
    deleted = from_event(events.MessageDeleted.Event([7, 8], peer))
    assert deleted == Deleted((MessageKey(-1000000001001, 7), MessageKey(-1000000001001, 8)))
    nowhere = from_event(events.MessageDeleted.Event([7], None))
    assert nowhere == Skipped("deletion without a chat id")
    assert from_event(events.Raw()) == Skipped("event 'Raw'")


def test_what_cannot_be_stored_is_refused() -> None:
    with pytest.raises(InvalidInput, match="date: naive datetime"):
        from_message(build(date=datetime(2024, 5, 1)))
    with pytest.raises(InvalidInput, match="message: NUL"):
        from_message(build(message="a\0"))
    with pytest.raises(InvalidInput, match=r"entities\[0\].offset: -1"):
        from_message(build(entities=[types.MessageEntityBold(-1, 2)]))
    with pytest.raises(InvalidInput, match="is empty"):
        from_message(types.MessageEmpty(id=7, peer_id=types.PeerChannel(1001)))
    with pytest.raises(InvalidInput, match="expected a Telethon message, got int"):
        from_message(7)  # type: ignore[arg-type]


def test_importing_the_sources_imports_no_telethon() -> None:
    code = (
        "import sys, telegram_hybrid.sources, telegram_hybrid.sources.telethon as own;"
        "assert 'telethon' not in sys.modules, 'telethon was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
