"""The original's media references as attachments. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Media

#: Our fields, and the names under which a reference may have them.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "file_id": ("file_id", "id"),
    "path": ("path", "file_path", "local_path"),
    "name": ("name", "file_name"),
    "mime_type": ("mime_type",),
    "size": ("size", "file_size"),
    "width": ("width",),
    "height": ("height",),
    "duration": ("duration",),
}


def attachments(media_type: str | None, references: Any) -> tuple[tuple[Media, ...], bool]:
    """Return the attachments, and whether the references say more than those hold.

    A reference is an object with names such as `file_id`, or a text, which is the file's id. One
    that says no type has the row's. A type without references is an attachment without a file.
    """
    kind = (media_type or "").strip()
    if references is None or references == []:
        return ((Media(type=kind),) if kind else ()), False
    if not isinstance(references, list):
        return ((Media(type=kind),) if kind else ()), True
    made = [_attachment(kind or "unknown", each) for each in references]
    return tuple(media for media, _ in made), any(more for _, more in made)


def _attachment(kind: str, reference: Any) -> tuple[Media, bool]:
    try:
        if isinstance(reference, str):
            return Media(type=kind, file_id=reference), False
        if isinstance(reference, dict):
            return _from_object(kind, reference)
    except InvalidInput:
        pass
    return Media(type=kind), True


def _from_object(kind: str, reference: Mapping[str, Any]) -> tuple[Media, bool]:
    fields: dict[str, Any] = {}
    used = {"type"}
    for field, names in _NAMES.items():
        for name in names:
            if reference.get(name) is not None:
                fields[field] = reference[name]
                used.add(name)
                break
    told = reference.get("type")
    media = Media(type=kind if told is None else told, **fields)
    return media, any(value is not None and name not in used for name, value in reference.items())
