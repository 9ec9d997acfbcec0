"""What a head window and pages can prove: an answer that is complete, or None (promise P6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from telegram_hybrid.model import Message
from telegram_hybrid.schema.redis.values import PAGE, Run, Window

#: The id up to which everything is known, when there is no end to it.
EVERY_ID = 2**63 - 1
#: Pages that are asked for at once.
_PAGES = 16

#: A run of messages: decoded, or as it is stored.
Known: TypeAlias = Window | Run


def latest_from(window: Window, limit: int) -> list[Message] | None:
    """Return the newest `limit` messages, newest first; None if the window may lack some."""
    if limit > len(window.messages) and not window.complete:
        return None
    return list(window.messages[:limit])


def after_from(window: Known, message_id: int, limit: int) -> list[Message] | None:
    """Return the first `limit` messages above `message_id`, ascending.

    None if the window does not reach down that far: messages below `lo` are unknown to it.
    """
    if message_id < window.lo - 1 and not window.complete:
        return None
    return window.after(message_id, limit)


def pages_after(message_id: int, limit: int) -> range:
    """Return the numbers of the pages worth asking for what follows `message_id`.

    As many as hold `limit` messages where every id is one.
    """
    first = (message_id + 1) // PAGE
    return range(first, min(first + _PAGES, (message_id + limit) // PAGE + 1))


def sealed(window: Known, number: int) -> bool:
    """Whether a page is below the one that the newest message is in: those rarely change."""
    return number < window.hi // PAGE


def after_from_pages(
    window: Known | None, pages: Mapping[int, Known | None], message_id: int, limit: int
) -> tuple[list[Message], int]:
    """Return what follows `message_id`, ascending, and the id up to which that is complete.

    `limit` at most; what is beyond the last of them counts as unknown.
    `pages` are consecutive, and the first holds the id after `message_id`. The window continues
    them where it reaches down to their end.
    """
    found: list[Message] = []
    covered = message_id
    for number in sorted(pages):
        page = pages[number]
        if page is None:
            break
        found += page.after(message_id, limit - len(found))
        if len(found) == limit:
            return found, found[-1].message_id if found else message_id
        covered = (number + 1) * PAGE - 1
    newer = after_from(window, covered, limit - len(found)) if window else None
    if newer is None:
        return found, covered
    return found + newer, EVERY_ID


def after_from_cache(
    window: Known | None, pages: Mapping[int, Known | None], message_id: int, limit: int
) -> tuple[list[Message], int] | None:
    """Return the same of what is cached, be it in the window alone or in pages alone.

    None if what the cache lacks of it is to be loaded: the window, or a page that is sealed.
    """
    newest = after_from(window, message_id, limit) if window else None
    if newest is not None:
        return newest, EVERY_ID
    found, covered = after_from_pages(window, pages, message_id, limit)
    if len(found) == limit or covered == EVERY_ID:
        return found, covered
    following = (covered + 1) // PAGE
    if window is None or (following in pages and sealed(window, following)):
        return None
    return found, covered
