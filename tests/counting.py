"""What statistics must say: the messages counted by Python, and a life that befalls them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from math import floor, log
from random import Random
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from telegram_hybrid import Hybrid, Message, MessageType, Source, Status
from telegram_hybrid.errors import IllegalTransition, NotFound
from telegram_hybrid.testing import make_message

CHANNELS = (-1001, -1002, -1003)
NOON = datetime(2024, 1, 31, 12, 0, tzinfo=UTC)
MIDNIGHT = datetime(2024, 2, 1, tzinfo=UTC)  # between two partitions
HOUR = timedelta(hours=1)
Cells = dict[tuple[Any, ...], tuple[Any, ...]]


def execute(hybrid: Hybrid, statement: str, **values: Any) -> list[Any]:
    with hybrid.engine.begin() as connection:
        told = text(statement.replace("{s}", hybrid.settings.database_schema))
        done = connection.execute(told, values)
        return list(done) if done.returns_rows else []


def cells(hybrid: Hybrid, step: str) -> Cells:
    """What a view of the schema has, by what it is by."""
    rows = execute(
        hybrid,
        "SELECT channel_id, bucket, status, source, message_type, latency_bin,"
        " messages, latency_sum_us, latency_min_us, latency_max_us"
        f" FROM {{s}}.message_statistics_{step}",
    )
    found = {(row[0], row[1].astimezone(UTC), *row[2:6]): tuple(row[6:]) for row in rows}
    assert len(found) == len(rows)
    return found


def counted(hybrid: Hybrid, step: timedelta) -> Cells:
    """The same from the messages themselves, by Python."""
    rows = execute(
        hybrid,
        "SELECT channel_id, sent_at, status, source, message_type, received_at, published_at"
        " FROM {s}.messages",
    )
    latencies = defaultdict(list)
    for channel_id, sent_at, *kind, received_at, published_at in rows:
        latency, number = None, -1
        if published_at is not None:
            latency = max(0, (published_at - received_at) // timedelta(microseconds=1))
            number = floor(log(max(latency, 1000) / 1000) / log(1.1))
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        bucket = epoch + (sent_at - epoch) // step * step
        latencies[(channel_id, bucket, *kind, number)].append(latency)
    return {
        key: (len(all_of), None, None, None)
        if key[-1] == -1
        else (len(all_of), sum(all_of), min(all_of), max(all_of))
        for key, all_of in latencies.items()
    }


def assert_equal_to_counting(hybrid: Hybrid) -> None:
    """Straight after a refresh."""
    assert cells(hybrid, "hourly") == counted(hybrid, HOUR)
    assert cells(hybrid, "daily") == counted(hybrid, 24 * HOUR)


class Life:
    """Does one thing after another to the messages of a store, by chance."""

    def __init__(self, hybrid: Hybrid, random: Random, channels: tuple[int, ...]) -> None:
        self.hybrid = hybrid
        self.random = random
        self.channels = channels

    def step(self) -> None:
        act: Callable[[], object] = self.random.choice(
            [self.save, self.edit, self.mark, *[self.publish] * 5, self.delete, self.restore]
        )
        with suppress(IllegalTransition, NotFound):
            act()

    def key(self) -> tuple[int, int]:
        return self.random.choice(self.channels), self.random.randrange(80)

    def message(self, **fields: Any) -> Message:
        channel_id, message_id = self.key()
        spread = Random(f"{channel_id} {message_id}")  # a redelivery says the same
        return make_message(
            channel_id=channel_id,
            message_id=message_id,
            sent_at=MIDNIGHT + timedelta(minutes=spread.randrange(-90, 90)),
            source=spread.choice([Source.BOT, Source.BOT, Source.BOT, Source.MTPROTO]),
            message_type=spread.choice([MessageType.CHANNEL_POST] * 3 + [MessageType.MESSAGE]),
            **fields,
        )

    def save(self) -> None:
        self.hybrid.messages.save_many(self.message() for _ in range(self.random.randint(1, 30)))

    def edit(self) -> None:
        edited_at = NOON + timedelta(seconds=self.random.randrange(9000))
        self.hybrid.messages.save(self.message(text=f"{edited_at}", edited_at=edited_at))

    def mark(self) -> None:
        statuses = [each for each in Status if each is not Status.DELETED]
        self.hybrid.messages.mark(*self.key(), self.random.choice(statuses))

    def publish(self) -> None:
        """As if it had waited for some time, or for less than none; several share a bin."""
        channel_id, message_id = self.key()
        milliseconds = self.random.choice([-5, 0.4, 0.7, 20, 20.5, 20.7, 21, 300 * 86_400_000])
        with self.hybrid.transaction() as tx:
            tx.messages.mark(channel_id, message_id, Status.PUBLISHED)
            tx.connection.execute(
                text(
                    f"UPDATE {self.hybrid.settings.database_schema}.messages"
                    " SET published_at = received_at + :late"
                    " WHERE channel_id = :channel_id AND message_id = :message_id"
                ),
                {
                    "late": timedelta(milliseconds=milliseconds),
                    "channel_id": channel_id,
                    "message_id": message_id,
                },
            )

    def delete(self) -> None:
        self.hybrid.messages.delete(*self.key())

    def restore(self) -> None:
        self.hybrid.messages.restore(*self.key())

    def by_hand(self) -> None:
        """What somebody does by psql, to many rows by one statement: undo deletions, and worse."""
        channel_id, message_id = self.key()
        # TimescaleDB moves no row into another chunk: then it stays where it is.
        moves = "a hypertable" not in self.hybrid.migrate().storage
        with nullcontext() if moves else suppress(IntegrityError):
            self._statement(channel_id, message_id)

    def _statement(self, channel_id: int, message_id: int) -> None:
        execute(
            self.hybrid,
            self.random.choice(
                [
                    "UPDATE {s}.messages SET status = deleted_from, deleted_at = NULL"
                    " WHERE channel_id = :channel_id AND status = 'deleted'",
                    "DELETE FROM {s}.messages WHERE channel_id = :channel_id"
                    " AND message_id BETWEEN :message_id AND :message_id + 4",
                    "UPDATE {s}.messages SET published_at = received_at + message_id % 5 * '7 ms'"
                    "::interval WHERE channel_id = :channel_id AND message_id < :message_id"
                    " AND status = 'published'",
                    "UPDATE {s}.messages"
                    " SET sent_at = date_bin('3 hours', sent_at, '2024-01-01Z') + interval '5 min'"
                    " WHERE channel_id = :channel_id AND message_id = :message_id",
                ]
            ),
            channel_id=channel_id,
            message_id=message_id,
        )
