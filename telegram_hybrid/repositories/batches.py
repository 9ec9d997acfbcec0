"""Batches: a stream of any length, cut into pieces of bounded size (P11)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Message, checks

#: Messages of one batch, and so of one transaction.
ROWS = 1_000
#: Characters of text of one batch: a batch of long posts holds fewer.
CHARACTERS = 2_000_000


def batches(messages: Iterable[Message]) -> Iterator[list[Message]]:
    """Yield lists of at most ROWS messages and about CHARACTERS of text.

    When the stream raises, what it gave before is yielded first: nothing read is lost.
    Raises `InvalidInput` for an item that is no Message.
    """
    batch: list[Message] = []
    size = 0
    failure: Exception | None = None
    try:
        for position, message in enumerate(checks.iterable("messages", messages)):
            batch.append(checked_message(f"messages[{position}]", message))
            size += len(message.text) + len(message.caption or "")
            if len(batch) >= ROWS or size >= CHARACTERS:
                yield batch
                batch, size = [], 0
    except Exception as error:  # noqa: BLE001  (raised below, after what came before it)
        failure = error
    if batch:
        yield batch
    if failure is not None:
        raise failure


def waves(messages: Sequence[Message]) -> Iterator[list[int]]:
    """Yield positions in waves: each key once a wave, its occurrences in their order."""
    waiting = deque(range(len(messages)))
    while waiting:
        seen: set[tuple[int, int]] = set()
        wave: list[int] = []
        later: deque[int] = deque()
        for position in waiting:
            message = messages[position]
            key = (message.channel_id, message.message_id)
            (later if key in seen else wave).append(position)
            seen.add(key)
        yield wave
        waiting = later


def checked_message(field: str, message: object) -> Message:
    """Return `message` if it is a Message. Raises `InvalidInput` naming the field."""
    if isinstance(message, Message):
        return message
    raise InvalidInput(field, f"expected a Message, got {type(message).__name__}")
