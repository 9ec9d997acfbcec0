"""What happened to each message at Telegram, and which writer hears of it in which shape. Pure."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum

import attrs

from telegram_hybrid.model import Message, MessageKey, Source

WRITERS = 16
#: How many writers hear of each content, on average.
TOLD = 3
#: How many of the edits that can go back to an earlier content do so.
BACK = 0.7
#: The last shares its outbox shard with the first.
CHANNELS = (-1001, -1002, -1003, -1004, -1017)
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_EDIT_EVERY = timedelta(minutes=1)
#: What sources add to the time of the same message; the last may be in another partition.
_SENT_LATER = [timedelta(seconds=each) for each in (0, 0, 1, 90, 40 * 86_400)]


class Fate(Enum):
    """What the writers do with a message besides saving it."""

    KEPT = "kept"
    PUBLISHED = "published"
    DELETED = "deleted"


@attrs.frozen(slots=True)
class Story:
    """The contents of one message, oldest first: each later one is an edit.

    Each differs from the one before, and has a time of its own; some go back to an earlier one.
    """

    contents: tuple[Message, ...]
    fate: Fate

    @property
    def key(self) -> MessageKey:
        return self.contents[0].key

    @property
    def goes_back(self) -> bool:
        """Whether an edit goes back to an earlier content."""
        return len({_words(each) for each in self.contents}) < len(self.contents)

    def reached(self, words: tuple[str, str | None], edited_at: datetime | None) -> int:
        """Return which content this is, by its time; -1 for one that was not said then."""
        times = [each.edited_at or each.sent_at for each in self.contents]
        at = max(bisect_right(times, edited_at or times[0]) - 1, 0)
        return at if _words(self.contents[at]) == words else -1


def stories(seed: int, count: int) -> list[Story]:
    """Return `count` stories, the same for a seed."""
    rng = random.Random(seed)
    return [_story(rng, number) for number in range(count)]


def deliveries(told: Sequence[Story], seed: int, writer: int) -> Iterator[list[Message]]:
    """Yield the batches that one writer saves: shuffled, of one channel or of several.

    Every content reaches one writer at least; some reach the same one twice.
    """
    rng = random.Random(f"{seed}/{writer}")
    mine: list[Message] = []
    for number, story in enumerate(told):
        for edits, content in enumerate(story.contents):
            if (number + edits) % WRITERS == writer or rng.random() < (TOLD - 1) / WRITERS:
                mine.extend(_as_told(content, rng) for _ in range(1 + (rng.random() < 0.1)))
    rng.shuffle(mine)
    while mine:
        size = rng.randint(20, 400)
        batch, mine = mine[:size], mine[size:]
        if rng.random() < 0.5:
            yield batch
            continue
        for channel in rng.sample(CHANNELS, len(CHANNELS)):
            if own := [message for message in batch if message.channel_id == channel]:
                yield own


def _story(rng: random.Random, number: int) -> Story:
    sent_at = _BEGIN + timedelta(minutes=rng.randrange(120 * 1_440))
    key = MessageKey(rng.choice(CHANNELS), number)
    edits = rng.choices((0, 1, 2, 4), (60, 25, 10, 5))[0]
    contents: list[Message] = []
    for edit in range(edits + 1):
        edited_at = sent_at + edit * _EDIT_EVERY if edit else None
        earlier = [each for each in contents if _words(each) != _words(contents[-1])]
        if earlier and rng.random() < BACK:
            contents.append(attrs.evolve(rng.choice(earlier), edited_at=edited_at))
            continue
        contents.append(
            Message(
                channel_id=key.channel_id,
                message_id=key.message_id,
                sent_at=sent_at,
                edited_at=edited_at,
                source=Source.BOT,
                **{rng.choice(("text", "caption")): f"{number}: Сигнал №{edit} 📈"},
            )
        )
    fate = rng.choices((Fate.KEPT, Fate.PUBLISHED, Fate.DELETED), (94, 3, 3))[0]
    return Story(tuple(contents), fate)


def _words(message: Message) -> tuple[str, str | None]:
    return message.text, message.caption


def _as_told(content: Message, rng: random.Random) -> Message:
    """One source's version: another time of sending, other views, perhaps a reaction since.

    A reaction comes as an edit of the same content, later than it and before the next content.
    """
    changes: dict[str, object] = {"sent_at": content.sent_at + rng.choice(_SENT_LATER)}
    if rng.random() < 0.2:
        changes["metadata"] = {"views": rng.randrange(1_000)}
    if rng.random() < 0.1:
        changes["edited_at"] = (content.edited_at or content.sent_at) + _EDIT_EVERY / 2
    return attrs.evolve(content, **changes)
