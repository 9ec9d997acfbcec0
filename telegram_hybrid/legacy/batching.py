"""Batches: the messages of a channel, cut into pieces of bounded size (P11). No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from telegram_hybrid.legacy.checking import Refused
from telegram_hybrid.legacy.merging import Merged

#: Messages, and characters of text, of one batch.
ROWS = 1_000
CHARACTERS = 2_000_000


@attrs.define(slots=True)
class Batch:
    """Messages of one channel, by ascending id: those above `after_id` up to `upto_id`."""

    after_id: int
    upto_id: int
    rows: int = 0
    merged: list[Merged] = attrs.field(factory=list)
    refused: list[int] = attrs.field(factory=list)
    characters: int = 0

    def add(self, each: Merged | Refused) -> None:
        """Take in one message, or note that it is left out."""
        self.rows += each.copies
        if isinstance(each, Refused):
            self.upto_id = each.message_id
            self.refused.append(each.message_id)
            return
        self.upto_id = each.message.message_id
        self.merged.append(each)
        self.characters += len(each.message.content)
        self.characters += sum(len(item.text) + len(item.caption or "") for item in each.earlier)

    @property
    def is_full(self) -> bool:
        """Whether the next message belongs to another batch."""
        return len(self.merged) + len(self.refused) >= ROWS or self.characters >= CHARACTERS


def batches(after_id: int, found: Iterable[Merged | Refused]) -> Iterator[Batch]:
    """Cut the messages of a channel, above `after_id`, into batches of bounded size."""
    batch = Batch(after_id, after_id)
    for each in found:
        batch.add(each)
        if batch.is_full:
            yield batch
            batch = Batch(batch.upto_id, batch.upto_id)
    if batch.rows:
        yield batch
