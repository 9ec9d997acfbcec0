"""The one vocabulary that all sources are brought to, so that one post is one message.

The same post arrives by Desktop export, Bot API and Telethon, and must be a duplicate, not an
edit. Names of media and entities are the Bot API's (core.telegram.org/bots/api), names of service
actions are Telegram Desktop's (export_output_json.cpp).

Text or caption: `text` is the text of a message without a file. The text that comes with a file
is its `caption`, and `text` is then empty, as in the Bot API. `CAPTIONED` says which media count.
"""

from __future__ import annotations

from collections.abc import Sequence

from telegram_hybrid.model import Media

#: Media whose text is a caption (Bot API, Message.caption).
CAPTIONED = frozenset({"animation", "audio", "document", "paid_media", "photo", "video", "voice"})

#: Telegram Desktop's `media_type` in the Bot API's words.
DESKTOP_MEDIA = {
    "animation": "animation",
    "audio_file": "audio",
    "sticker": "sticker",
    "video_file": "video",
    "video_message": "video_note",
    "voice_message": "voice",
}

#: Telegram Desktop's keys of attachments that are no files, in the Bot API's words, first wins.
DESKTOP_ATTACHMENTS = {
    "poll": "poll",
    "contact_information": "contact",
    "place_name": "venue",
    "location_information": "location",
    "game_title": "game",
    "invoice_information": "invoice",
    "todo_list": "checklist",
    "giveaway_information": "giveaway",
    "giveaway_results": "giveaway_winners",
    "paid_stars_amount": "paid_media",
}

#: Telegram Desktop's and MTProto's names of entities where the Bot API says otherwise.
ENTITIES = {
    "link": "url",
    "mention_name": "text_mention",
    "phone": "phone_number",
    "strike": "strikethrough",
    "text_url": "text_link",
}

#: The Bot API's service fields, in Telegram Desktop's words; others keep their name.
BOT_ACTIONS = {
    "channel_chat_created": "create_channel",
    "delete_chat_photo": "delete_group_photo",
    "forum_topic_created": "topic_created",
    "forum_topic_edited": "topic_edit",
    "group_chat_created": "create_group",
    "left_chat_member": "remove_members",
    "message_auto_delete_timer_changed": "set_messages_ttl",
    "migrate_from_chat_id": "migrate_from_group",
    "migrate_to_chat_id": "migrate_to_supergroup",
    "new_chat_members": "invite_members",
    "new_chat_photo": "edit_group_photo",
    "new_chat_title": "edit_group_title",
    "pinned_message": "pin_message",
    "proximity_alert_triggered": "proximity_reached",
    "supergroup_chat_created": "create_channel",
    "video_chat_participants_invited": "invite_to_group_call",
    "video_chat_scheduled": "group_call_scheduled",
}

#: MTProto's MessageAction... in Telegram Desktop's words; others keep their name.
MTPROTO_ACTIONS = {
    "channel_create": "create_channel",
    "channel_migrate_from": "migrate_from_group",
    "chat_add_user": "invite_members",
    "chat_create": "create_group",
    "chat_delete_photo": "delete_group_photo",
    "chat_delete_user": "remove_members",
    "chat_edit_photo": "edit_group_photo",
    "chat_edit_title": "edit_group_title",
    "chat_joined_by_link": "join_group_by_link",
    "chat_joined_by_request": "join_group_by_request",
    "chat_migrate_to": "migrate_to_supergroup",
    "contact_sign_up": "joined_telegram",
    "game_score": "score_in_game",
    "geo_proximity_reached": "proximity_reached",
    "history_clear": "clear_history",
    "payment_sent": "send_payment",
    "screenshot_taken": "take_screenshot",
    "set_messages_t_t_l": "set_messages_ttl",
    "topic_create": "topic_created",
}


def text_and_caption(text: str, media: Sequence[Media]) -> tuple[str, str | None]:
    """Return (text, caption) of a message whose one text comes with `media`."""
    if text and media and media[0].type in CAPTIONED:
        return "", text
    return text, None
