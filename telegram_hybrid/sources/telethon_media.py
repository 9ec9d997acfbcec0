"""Media of a Telethon message: MTProto's media become Media values, named as in the Bot API."""

from __future__ import annotations

from typing import Any

from telegram_hybrid.model import Media

#: MTProto's media that are no single file. A web page is a preview of the text, not a media.
_OTHERS = {
    "MessageMediaContact": "contact",
    "MessageMediaDice": "dice",
    "MessageMediaGame": "game",
    "MessageMediaGeo": "location",
    "MessageMediaGeoLive": "location",
    "MessageMediaGiveaway": "giveaway",
    "MessageMediaGiveawayResults": "giveaway_winners",
    "MessageMediaInvoice": "invoice",
    "MessageMediaPaidMedia": "paid_media",
    "MessageMediaPoll": "poll",
    "MessageMediaStory": "story",
    "MessageMediaToDo": "checklist",
    "MessageMediaUnsupported": "unsupported",
    "MessageMediaVenue": "venue",
    "MessageMediaVideoStream": "video_stream",
}


def media_of(media: Any) -> tuple[Media, ...]:
    """Return the Media of a Telethon `message.media`; none for a web page or None."""
    kind = type(media).__name__
    if kind == "MessageMediaPhoto":
        return (_photo(media.photo),)
    if kind == "MessageMediaDocument":
        return (_document(media.document),)
    if kind in _OTHERS:
        return (Media(type=_OTHERS[kind]),)
    return ()


def _photo(photo: Any) -> Media:
    """Return the largest size of a photo; an expired one has none."""
    sizes = [size for size in getattr(photo, "sizes", None) or () if getattr(size, "w", None)]
    if not sizes:
        return Media(type="photo", file_id=_id(photo))
    largest = max(sizes, key=lambda size: size.w * size.h)
    progressive = getattr(largest, "sizes", None)
    return Media(
        type="photo",
        file_id=_id(photo),
        size=max(progressive) if progressive else getattr(largest, "size", None),
        width=largest.w,
        height=largest.h,
    )


def _document(document: Any) -> Media:
    parts = {
        type(part).__name__.removeprefix("DocumentAttribute"): part
        for part in getattr(document, "attributes", None) or ()
    }
    timed = parts.get("Video") or parts.get("Audio")
    sized = parts.get("Video") or parts.get("ImageSize")
    return Media(
        type=_kind(parts),
        file_id=_id(document),
        name=getattr(parts.get("Filename"), "file_name", None),
        mime_type=getattr(document, "mime_type", None),
        size=getattr(document, "size", None),
        width=getattr(sized, "w", None),
        height=getattr(sized, "h", None),
        duration=getattr(timed, "duration", None),
    )


def _kind(parts: dict[str, Any]) -> str:
    """Return the kind of a document by its attributes, in Telegram Desktop's order."""
    video, audio = parts.get("Video"), parts.get("Audio")
    if "Sticker" in parts:
        return "sticker"
    if video and video.round_message:
        return "video_note"
    if audio and audio.voice:
        return "voice"
    if "Animated" in parts:
        return "animation"
    if video:
        return "video"
    return "audio" if audio else "document"


def _id(file: Any) -> str | None:
    number = getattr(file, "id", None)
    return None if number is None else str(number)
