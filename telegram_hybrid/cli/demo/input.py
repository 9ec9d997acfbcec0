"""The demo's input: files as one stream, its end held back, and what must be read back."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from random import Random

import attrs

from telegram_hybrid.model import Channel, Message, MessageKey
from telegram_hybrid.repositories.decisions import Verdict, compare
from telegram_hybrid.sources import open_source

#: The most posts that are held back to arrive live.
HELD_BACK = 200
#: Messages that are remembered, over the whole input, to be read back.
SAMPLE = 500
#: Of so many channels the newest messages are remembered, and so many of each.
CHANNELS, PAGE = 64, 50


@attrs.define(slots=True, kw_only=True)
class Input:
    """The messages of all files in turn; iterate `stream` once, and the rest fills up.

    After it, `held` has the last 200 messages, or a tenth if that is less; at least one.
    """

    paths: Sequence[Path]
    moved: Callable[[int], object]
    messages_read: int = 0
    skipped: dict[str, int] = attrs.field(factory=dict)
    channels: dict[int, Channel] = attrs.field(factory=dict)
    held: list[Message] = attrs.field(factory=list)
    witness: Witness = attrs.field(factory=lambda: Witness())

    def stream(self) -> Iterator[Message]:
        """Yield all messages but the last ones; `moved` is told the bytes read so far."""
        yield from hold_back(self._all(), self.held)

    def _all(self) -> Iterator[Message]:
        before = 0
        for path in self.paths:
            with open_source(path) as reader:
                for message in reader:
                    self.messages_read += 1
                    self.witness.saw(message)
                    if self.messages_read % 100 == 0:
                        self.moved(before + reader.position)
                    yield message
                before += reader.size
                self.moved(before)
                self.channels.update({item.channel_id: item for item in reader.channels})
                for reason, count in reader.report.skipped.items():
                    self.skipped[reason] = self.skipped.get(reason, 0) + count


def hold_back(messages: Iterator[Message], held: list[Message]) -> Iterator[Message]:
    """Yield all but the last HELD_BACK messages, or all but a tenth of them if that is less.

    Those come to lie in `held` when the stream has ended. Not more than that is kept in memory.
    """
    last: deque[Message] = deque()
    total = 0
    for message in messages:
        total += 1
        last.append(message)
        if len(last) > HELD_BACK:
            yield last.popleft()
    wanted = min(HELD_BACK, max(1, total // 10))
    while len(last) > wanted:
        yield last.popleft()
    held.extend(last)


class Witness:
    """Remembers some of what was sent, in bounded memory, to compare with what is read.

    A sample over the whole input, and the newest messages of the first channels.
    """

    def __init__(self) -> None:
        self._random = Random(1)  # noqa: S311 - the same sample every time
        self._seen = 0
        self._sample: list[MessageKey] = []
        self._newest: dict[int, list[int]] = {}
        self._kept: dict[MessageKey, Message] = {}
        #: Of some of these: when their content was last said again.
        self._said: dict[MessageKey, datetime | None] = {}

    def saw(self, message: Message) -> None:
        """Take note of one message that is sent."""
        known = self._kept.get(message.key)
        if known is not None:
            # Of two contents of one message the store keeps the newer: so do we.
            verdict = compare(known, message, self._said.get(message.key))
            if verdict is Verdict.EDIT:
                self._kept[message.key] = message
            elif verdict is Verdict.CONFIRMED:
                self._said[message.key] = message.edited_at
            return
        self._into_sample(message)
        self._into_newest(message)

    def sample(self) -> list[Message]:
        """Return the sample, in no order."""
        return [self._kept[key] for key in self._sample]

    def newest(self) -> dict[int, list[Message]]:
        """Return the newest messages that were sent, newest first, by channel."""
        return {
            channel_id: [self._kept[MessageKey(channel_id, number)] for number in reversed(ids)]
            for channel_id, ids in self._newest.items()
        }

    @property
    def remembered(self) -> int:
        """How many messages are kept in memory."""
        return len(self._kept)

    def _into_sample(self, message: Message) -> None:
        # Algorithm R (Vitter 1985): every message has the same chance to be in the sample.
        self._seen += 1
        if len(self._sample) < SAMPLE:
            self._sample.append(message.key)
            self._kept[message.key] = message
            return
        place = self._random.randrange(self._seen)
        if place < SAMPLE:
            gone, self._sample[place] = self._sample[place], message.key
            self._kept[message.key] = message
            self._forget(gone)

    def _into_newest(self, message: Message) -> None:
        ids = self._newest.get(message.channel_id)
        if ids is None:
            if len(self._newest) == CHANNELS:
                return
            ids = self._newest[message.channel_id] = []
        if len(ids) == PAGE and message.message_id < ids[0]:
            return
        insort(ids, message.message_id)
        self._kept[message.key] = message
        if len(ids) > PAGE:
            self._forget(MessageKey(message.channel_id, ids.pop(0)))

    def _forget(self, key: MessageKey) -> None:
        if key not in self._sample and key.message_id not in self._newest.get(key.channel_id, ()):
            del self._kept[key]
            self._said.pop(key, None)
