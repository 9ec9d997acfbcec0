"""Text runs of a Desktop export: a string or a mixed list becomes text and UTF-16 entities."""

from __future__ import annotations

from typing import Any

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Entity
from telegram_hybrid.sources.vocabulary import ENTITIES

_KEYS = frozenset({"type", "text", "href", "user_id", "language", "document_id", "collapsed"})
_EXPORT_FIELDS = {
    "url": "href",
    "custom_emoji_id": "document_id",
    "offset": "text",
    "length": "text",
}


def read_text(raw: dict[str, Any]) -> tuple[str, tuple[Entity, ...], dict[str, Any]]:
    """Take `text` and `text_entities` out of a raw message: (text, entities, left over).

    Both normally say the same; where they differ, the longer is the text and the other is left
    over, as are runs with keys that an entity has no field for. Raises `InvalidInput`.
    """
    text = raw.pop("text", "")
    runs = raw.pop("text_entities", None)
    plain = text if isinstance(text, str) else _joined("text", text)
    if not runs:
        if plain is text:
            return plain, (), {}
        entities, odd = _entities("text", text)
        return plain, entities, {"text": text} if odd else {}
    joined = _joined("text_entities", runs)
    if len(joined) < len(plain):
        entities, odd = _entities("text", text) if plain is not text else ((), False)
        left = {"text_entities": runs}
        return plain, entities, {**left, "text": text} if odd else left
    entities, odd = _entities("text_entities", runs)
    left = {"text_entities": runs} if odd else {}
    return joined, entities, left if joined == plain else {**left, "text": text}


def units(text: str) -> int:
    """Return the length in UTF-16 code units, in which Telegram counts."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) >> 1


def _joined(field: str, runs: Any) -> str:
    if not isinstance(runs, list):
        raise InvalidInput(field, f"expected a string or a list, got {type(runs).__name__}")
    return "".join([_text(field, index, run) for index, run in enumerate(runs)])


def _text(field: str, index: int, run: Any) -> str:
    if isinstance(run, str):
        return run
    if isinstance(run, dict):
        if isinstance(text := run.get("text"), str):
            return text
        raise InvalidInput(f"{field}[{index}].text", "expected a string")
    raise InvalidInput(f"{field}[{index}]", "expected a string or an object")


def _entities(field: str, runs: list[Any]) -> tuple[tuple[Entity, ...], bool]:
    """Return the entities of the runs, and whether a run says more than its entity holds."""
    entities = []
    odd = False
    offset = 0
    for index, run in enumerate(runs):
        text = run if isinstance(run, str) else run["text"]
        if isinstance(run, dict) and run.get("type") != "plain":
            if text:
                try:
                    entities.append(_entity(run, offset, units(text)))
                except InvalidInput as error:
                    name = _EXPORT_FIELDS.get(error.field, error.field)
                    raise InvalidInput(f"{field}[{index}].{name}", error.problem) from error
            odd = odd or not _KEYS.issuperset(run) or _emoji(run) != run.get("document_id")
        offset += units(text)
    return tuple(entities), odd


def _entity(run: dict[str, Any], offset: int, length: int) -> Entity:
    kind = run.get("type")
    if kind == "blockquote" and run.get("collapsed"):
        kind = "expandable_blockquote"
    return Entity(
        type=ENTITIES.get(kind, kind) if isinstance(kind, str) else kind,  # type: ignore[arg-type]
        offset=offset,
        length=length,
        url=run.get("href"),
        user_id=run.get("user_id"),
        language=run.get("language") or None,
        custom_emoji_id=_emoji(run),
    )


def _emoji(run: dict[str, Any]) -> str | None:
    """Return the id of a custom emoji; where the export has a path or a note, None."""
    value = run.get("document_id")
    return value if isinstance(value, str) and value.isdecimal() else None
