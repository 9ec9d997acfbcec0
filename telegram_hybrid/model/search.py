"""Search: what was found, in pages."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import attrs

from telegram_hybrid.model.message import Message


class Match(StrEnum):
    """How a text is looked for."""

    #: Its words and phrases, wherever they stand.
    WORDS = "words"
    #: Its characters, as they stand, in any case.
    SUBSTRING = "substring"


@attrs.frozen(slots=True)
class Found:
    """A message that a search found, and how well it fits: `rank` is between 0 and 1."""

    message: Message
    rank: float


@attrs.frozen(slots=True)
class FoundPage:
    """A part of what a search found; `cursor` asks for the next one, None where nothing is left.

    It is what it is made of: `for found in page`, `len(page)`.
    """

    found: tuple[Found, ...]
    cursor: str | None

    def __iter__(self) -> Iterator[Found]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)
