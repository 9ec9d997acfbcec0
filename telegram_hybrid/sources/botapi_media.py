"""Media of a Bot API message: files and other attachments become Media values."""

from __future__ import annotations

from typing import Any

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Media
from telegram_hybrid.sources.jsontext import json_object

#: Attachments with one file. An animation comes with a twin `document`, so it is looked for first.
_FILES = ("animation", "audio", "document", "sticker", "video", "video_note", "voice")
#: Attachments that are no single file. A venue comes with a twin `location`.
_OTHERS = (
    "paid_media",
    "story",
    "checklist",
    "contact",
    "dice",
    "game",
    "poll",
    "venue",
    "location",
    "invoice",
    "giveaway",
    "giveaway_winners",
)
_API_FIELDS = {
    "name": "file_name",
    "mime_type": "mime_type",
    "size": "file_size",
    "width": "width",
    "height": "height",
    "duration": "duration",
    "file_id": "file_id",
}


def take_media(raw: dict[str, Any]) -> tuple[Media, ...]:
    """Take the attachment out of a raw message; what a Media has no field for is left in it.

    Of a photo the largest size is the Media; the other sizes are left under `photo`.
    Raises `InvalidInput` naming the Bot API's field.
    """
    if "photo" in raw:
        return (_photo(raw),)
    for kind in _FILES:
        if kind in raw:
            file = json_object(kind, raw.pop(kind))
            media, left = _file(kind, kind, file)
            if left:
                raw[kind] = left
            twin = raw.get("document")
            if isinstance(twin, dict) and twin.get("file_id") == media.file_id:
                del raw["document"]
            return (media,)
    for kind in _OTHERS:
        if kind in raw:
            if kind == "venue" and json_object(kind, raw[kind]).get("location") == raw.get(
                "location"
            ):
                raw.pop("location", None)
            return (Media(type=kind),)
    return ()


def _photo(raw: dict[str, Any]) -> Media:
    sizes = raw.pop("photo")
    if not isinstance(sizes, list) or not sizes:
        raise InvalidInput("photo", "expected a list of sizes")
    sizes = [json_object(f"photo[{index}]", size) for index, size in enumerate(sizes)]
    areas = [_area(size) for size in sizes]
    largest = areas.index(max(areas))
    media, left = _file("photo", f"photo[{largest}]", sizes.pop(largest))
    if sizes:
        left["sizes"] = sizes
    if left:
        raw["photo"] = left
    return media


def _area(size: dict[str, Any]) -> int:
    width, height = size.get("width"), size.get("height")
    return width * height if type(width) is int and type(height) is int else 0


def _file(kind: str, where: str, file: dict[str, Any]) -> tuple[Media, dict[str, Any]]:
    """Return the Media of one file object, and what it has no field for."""
    left = dict(file)
    fields = {name: left.pop(key, None) for name, key in _API_FIELDS.items()}
    if "length" in left and fields["width"] is None:  # the diameter of a video note
        fields["width"] = fields["height"] = left.pop("length")
    duration = fields["duration"]
    if duration is not None and type(duration) not in (int, float):
        raise InvalidInput(f"{where}.duration", "expected a number")
    try:
        return Media(type=kind, **fields), left
    except InvalidInput as error:
        name = _API_FIELDS.get(error.field, error.field)
        raise InvalidInput(f"{where}.{name}", error.problem) from error
