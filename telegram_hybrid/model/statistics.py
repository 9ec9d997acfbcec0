"""Statistics: messages counted over a stretch of time, and how long they took to be published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from importlib import import_module
from math import ceil
from typing import Any, NamedTuple, Self, TypeVar

import attrs

from telegram_hybrid.errors import MissingExtra
from telegram_hybrid.model.message import MessageType, Source, Status

_K = TypeVar("_K")

#: How far a percentile of latencies may be from the exact one, as a share of that.
PERCENTILE_ERROR = 0.05
_MICROSECONDS = 1e6


class Bin(NamedTuple):
    """Latencies that lie near each other: how many, and their extremes in microseconds."""

    messages: int
    least: int
    greatest: int


@attrs.frozen(slots=True, kw_only=True)
class Latency:
    """How long messages took from `received_at` to `published_at`, in seconds.

    Mean, least and greatest are exact. Percentiles come from logarithmic bins: each is one of the
    extremes of its bin or the middle between them, so at most 5% from the message that stands at
    that rank (`PERCENTILE_ERROR`), or 0.6 ms below 1.1 ms. More than a year counts as a year.
    """

    messages: int
    mean: float
    least: float
    greatest: float
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, bins: Iterable[Bin], total: int) -> Self | None:
        """Put bins together that do not overlap, in any order; None for no message at all.

        `total` is the sum of their latencies, in microseconds.
        """
        ordered = sorted((each for each in bins if each.messages), key=lambda each: each.least)
        messages = sum(each.messages for each in ordered)
        if not messages:
            return None
        return cls(
            messages=messages,
            mean=total / messages / _MICROSECONDS,
            least=ordered[0].least / _MICROSECONDS,
            greatest=ordered[-1].greatest / _MICROSECONDS,
            p50=_at_rank(ordered, ceil(messages * 50 / 100)) / _MICROSECONDS,
            p95=_at_rank(ordered, ceil(messages * 95 / 100)) / _MICROSECONDS,
            p99=_at_rank(ordered, ceil(messages * 99 / 100)) / _MICROSECONDS,
        )


@attrs.frozen(slots=True, kw_only=True)
class Count:
    """How many messages are of one status, source and type at once."""

    status: Status
    source: Source
    message_type: MessageType
    messages: int


@attrs.frozen(slots=True, kw_only=True)
class Statistics:
    """The messages that were sent at or after `since` and before `until` (UTC).

    `channel_id` is None for all channels together. Every message counts once, by the status that
    it has now: deleted ones are among `messages`. What has a `published_at` is in `latency`,
    whatever became of it later; that is None where nothing was published.
    """

    channel_id: int | None
    since: datetime
    until: datetime
    counts: tuple[Count, ...] = ()
    latency: Latency | None = None

    @property
    def messages(self) -> int:
        """How many messages: different ones, because each is stored once (P1)."""
        return sum(each.messages for each in self.counts)

    @property
    def by_status(self) -> dict[Status, int]:
        """How many messages of each status; those that have none are left out."""
        return _sums((each.status, each.messages) for each in self.counts)

    @property
    def by_source(self) -> dict[Source, int]:
        """How many messages through each door."""
        return _sums((each.source, each.messages) for each in self.counts)

    @property
    def by_type(self) -> dict[MessageType, int]:
        """How many messages of each kind."""
        return _sums((each.message_type, each.messages) for each in self.counts)

    @property
    def posts(self) -> int:
        """How many of them are posts of a channel."""
        return self.by_type.get(MessageType.CHANNEL_POST, 0)

    @property
    def comments(self) -> int:
        """How many of them are comments on posts."""
        return self.by_type.get(MessageType.CHANNEL_POST_COMMENT, 0)

    @property
    def success_rate(self) -> float | None:
        """Which share of those that came to an end was published or reprocessed, not failed.

        None where none came to an end: what is on its way is no failure.
        """
        found = self.by_status
        good = found.get(Status.PUBLISHED, 0) + found.get(Status.REPROCESSED, 0)
        ended = good + found.get(Status.FAILED, 0)
        return good / ended if ended else None

    def flat(self) -> dict[str, Any]:
        """All figures by name, for a row of a table: what is not there counts 0 or is None."""
        statuses, sources = self.by_status, self.by_source
        latency = attrs.asdict(self.latency) if self.latency else {}
        return {
            "channel_id": self.channel_id,
            "since": self.since,
            "until": self.until,
            "messages": self.messages,
            **{status.value: statuses.get(status, 0) for status in Status},
            "posts": self.posts,
            "comments": self.comments,
            **{f"from_{source.value}": sources.get(source, 0) for source in Source},
            "success_rate": self.success_rate,
            **{f"latency_{name}": latency.get(name) for name in attrs.fields_dict(Latency)},
        }


@attrs.frozen(slots=True)
class Series:
    """Statistics by hour or by day, by channel and then by time; iterate over it, or take `rows`.

    Hours and days without messages are left out.
    """

    rows: list[Statistics]

    def __iter__(self) -> Iterator[Statistics]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame: a line for each row, its columns those of `flat`.

        Raises `MissingExtra` without pandas.
        """
        try:
            pandas: Any = import_module("pandas")
        except ImportError as error:
            raise MissingExtra("pip install 'telegram-hybrid[notebook]'") from error
        return pandas.DataFrame([row.flat() for row in self.rows])


def _sums(pairs: Iterable[tuple[_K, int]]) -> dict[_K, int]:
    found: dict[_K, int] = {}
    for key, number in pairs:
        found[key] = found.get(key, 0) + number
    return found


def _at_rank(ordered: Iterable[Bin], rank: int) -> float:
    """The microseconds of the message at `rank`, from 1, as well as its bin tells."""
    before = 0
    for each in ordered:
        last = before + each.messages
        if rank == before + 1:
            return each.least
        if rank == last:
            return each.greatest
        if rank < last:
            return (each.least + each.greatest) / 2
        before = last
    raise ValueError(f"rank {rank} of {before} messages")
