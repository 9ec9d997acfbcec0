"""What a head window and pages can prove: an answer that is complete, or None (promise P6)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from telegram_hybrid.model import Message
from telegram_hybrid.schema.redis.values import PAGE, Window

#: The id up to which everything is known, when there is no end to it.
EVERY_ID = 2**63 - 1


def latest_from(window: Window, limit: int) -> list[Message] | None:
    """Return the newest `limit` messages, newest first; None if the window may lack some."""
    if limit > len(window.messages) and not window.complete:
        return None
    return list(window.messages[:limit])


def after_from(window: Window, message_id: int, limit: int) -> list[Message] | None:
    """Return the first `limit` messages above `message_id`, ascending.

    None if the window does not reach down that far: messages below `lo` are unknown to it.
    """
    if message_id < window.lo - 1 and not window.complete:
        return None
    newer = (message for message in reversed(window.messages) if message.message_id > message_id)
    return list(islice(newer, limit))


def pages_after(window: Window, message_id: int, limit: int) -> range:
    """Return the numbers of the pages worth asking for what follows `message_id`.

    As many as hold `limit` messages where every id is one. Only pages below the one that the
    newest message is in: those rarely change.
    """
    first = (message_id + 1) // PAGE
    return range(first, min(first + limit // PAGE + 2, window.hi // PAGE))


def after_from_pages(
    window: Window, pages: Mapping[int, Window | None], message_id: int, limit: int
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
        found += (one for one in reversed(page.messages) if one.message_id > message_id)
        covered = (number + 1) * PAGE - 1
        if len(found) >= limit:
            return found[:limit], found[limit - 1].message_id
    newer = after_from(window, covered, limit - len(found))
    if newer is None:
        return found, covered
    return found + newer, EVERY_ID
