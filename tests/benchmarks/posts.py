"""Posts to measure with: as varied as a channel's, and the same in every run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random

from telegram_hybrid.model import Entity, Media, Message, MessageType, Source

CHANNEL = -1001649127710
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_WORDS = ("BUY", "SELL", "BTCUSDT", "ETHUSDT", "цель", "📈", "entry", "stop", "profit", "42 000")


def post(number: int, channel_id: int = CHANNEL) -> Message:
    """One post: 5 to 120 words, links in every second, a picture in every third."""
    random = Random(number)
    text = " ".join(random.choices(_WORDS, k=random.randint(5, 120)))
    with_media = number % 3 == 0
    links = [
        Entity(type="text_link", offset=7 * n, length=5, url=f"https://example.org/{number}/{n}")
        for n in range(number % 2 * 2)
    ]
    photo = Media(type="photo", file_id=f"AgAC{number:032x}", size=81_920, width=1280, height=720)
    return Message(
        channel_id=channel_id,
        message_id=number,
        sent_at=_BEGIN + timedelta(minutes=number % 150_000),
        text="" if with_media else text,
        caption=text if with_media else None,
        entities=tuple(links),
        media=(photo,) if with_media else (),
        message_type=MessageType.CHANNEL_POST,
        source=Source.BOT,
        sender_name="Signals",
        metadata={"views": number, "forwards": number % 7},
    )


def posts(count: int, first: int = 1, channel_id: int = CHANNEL) -> list[Message]:
    """Posts with consecutive ids."""
    return [post(number, channel_id) for number in range(first, first + count)]


def stream() -> Iterator[Message]:
    """Posts without end, each once."""
    number = 0
    while True:
        yield post(number := number + 1)
