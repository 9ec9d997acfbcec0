"""Statistics: read from the rollups that are kept beside the messages, never from those."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Engine
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from telegram_hybrid.connect.postgres import reads
from telegram_hybrid.errors import DatabaseError, InvalidInput
from telegram_hybrid.model import (
    Count,
    Latency,
    MessageType,
    Series,
    Source,
    Statistics,
    Status,
    checks,
)
from telegram_hybrid.model.statistics import Bin
from telegram_hybrid.schema.postgres.sql import fetch, sql

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

_KIND = "status, source, message_type, latency_bin"
_WANTED = """
WHERE bucket >= :since AND bucket < :until
  AND (CAST(:channel_id AS bigint) IS NULL OR channel_id = :channel_id)
"""

_SERIES = """
SELECT channel_id, bucket, {kind}, messages, latency_sum_us, latency_min_us, latency_max_us
FROM "{schema}".message_statistics_{step}
{wanted}
ORDER BY channel_id, bucket
""".replace("{kind}", _KIND).replace("{wanted}", _WANTED)

_SUMMARY = """
SELECT min(bucket), max(bucket), {kind}, sum(messages)::bigint AS messages,
       sum(latency_sum_us)::bigint, min(latency_min_us), max(latency_max_us)
FROM "{schema}".message_statistics_hourly
{wanted}
GROUP BY {kind}
""".replace("{kind}", _KIND).replace("{wanted}", _WANTED)


_REFRESH = 'CALL "{schema}".refresh_statistics()'


class Cell(NamedTuple):
    """Messages that are alike in everything that is counted. Latencies are in microseconds."""

    status: str
    source: str
    message_type: str
    latency_bin: int
    messages: int
    latency_sum: int | None
    latency_min: int | None
    latency_max: int | None


class StatisticsReader:
    """Counts and latencies of messages by the time at which they were sent.

    On plain PostgreSQL they are kept in the transaction of every write, so what is committed is
    counted. On TimescaleDB that is so for the last one or two hours; what is changed in an earlier
    one is counted within five minutes, or by `refresh`. Counts outlive the messages: partitions
    and chunks that are dropped stay counted.

    Ranges are [since, until), in any zone, and are widened to whole hours or days in UTC; None
    leaves that side open. Raises `InvalidInput` for naive datetimes and for a range without time
    in it, before anything is asked.
    """

    def __init__(self, engine: Engine, direct: Engine, schema: str) -> None:
        self._engine = engine
        self._direct = direct  # to refresh may take longer than a statement may, through the pool
        self._schema = schema

    def hourly(
        self,
        channel_id: int | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Series:
        """Return a row for each hour in which messages of the channel were sent.

        Without a channel, a row for each channel and hour.
        """
        return self._series("hourly", HOUR, channel_id, since, until)

    def daily(
        self,
        channel_id: int | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Series:
        """Return a row for each day (UTC), as `hourly` does for hours."""
        return self._series("daily", DAY, channel_id, since, until)

    def summary(
        self,
        channel_id: int | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Statistics:
        """Return the statistics of all hours of the range together, of one or of all channels.

        A side that was left open is, in the answer, where the messages begin or end.
        """
        asked = _asked(HOUR, channel_id, since, until)
        found = self._fetch(_SUMMARY, asked)
        begin = min((first for first, *_ in found), default=asked["since"])
        end = max((last + HOUR for _, last, *_ in found), default=asked["until"])
        return gathered(
            channel_id,
            asked["since"] if since else begin.astimezone(UTC),
            asked["until"] if until else end.astimezone(UTC),
            [Cell(*cell) for _, _, *cell in found],
        )

    def refresh(self) -> None:
        """Have what is counted include all that is committed, on TimescaleDB.

        There, a job does so every five minutes; the last one or two hours are always counted as
        they are. On plain PostgreSQL there is nothing to do. Waits for a refresh that is under
        way; raises `DatabaseError` if that takes longer than a minute, and for a role that does
        not own the views.
        """
        for attempt in Retrying(
            retry=retry_if_exception(_is_refreshed_elsewhere),
            stop=stop_after_delay(60),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            reraise=True,
        ):
            with attempt, reads(self._direct) as connection:
                connection.execute(sql(_REFRESH, self._schema))

    def _series(
        self,
        name: str,
        step: timedelta,
        channel_id: int | None,
        since: datetime | None,
        until: datetime | None,
    ) -> Series:
        asked = _asked(step, channel_id, since, until)
        found = self._fetch(_SERIES.replace("{step}", name), asked)
        rows = []
        for (channel, bucket), group in groupby(found, lambda row: (row[0], row[1])):
            begin = bucket.astimezone(UTC)
            cells = [Cell(*cell) for _, _, *cell in group]
            rows.append(gathered(channel, begin, begin + step, cells))
        return Series(rows)

    def _fetch(self, statement: str, values: dict[str, Any]) -> list[Any]:
        with reads(self._engine) as connection:
            return fetch(connection, statement, self._schema, values)


def is_not_allowed(error: DatabaseError) -> bool:
    """Whether our role may not refresh: the views are their owner's (insufficient_privilege)."""
    return _state(error) == "42501"


def _is_refreshed_elsewhere(error: BaseException) -> bool:
    """Whether TimescaleDB refuses because somebody else refreshes (lock_not_available)."""
    return isinstance(error, DatabaseError) and _state(error) == "55P03"


def _state(error: DatabaseError) -> object:
    return getattr(getattr(error.__cause__, "orig", None), "sqlstate", None)


def whole(since: datetime, until: datetime, step: timedelta) -> tuple[datetime, datetime]:
    """Return the whole steps that [since, until) touches. Both are UTC, from 1970 to 2100."""
    return (
        since - (since - checks.EARLIEST) % step,
        until + (checks.EARLIEST - until) % step,
    )


def gathered(
    channel_id: int | None, since: datetime, until: datetime, cells: Iterable[Cell]
) -> Statistics:
    """Put cells together: their counts by kind, their latencies by bin."""
    counts: dict[tuple[str, str, str], int] = {}
    bins: dict[int, list[Cell]] = {}
    for cell in cells:
        kind = (cell.status, cell.source, cell.message_type)
        counts[kind] = counts.get(kind, 0) + cell.messages
        if cell.latency_sum is not None:
            bins.setdefault(cell.latency_bin, []).append(cell)
    return Statistics(
        channel_id=channel_id,
        since=since,
        until=until,
        counts=tuple(
            Count(
                status=Status(status),
                source=Source(source),
                message_type=MessageType(kind),
                messages=number,
            )
            for (status, source, kind), number in sorted(counts.items())
        ),
        latency=Latency.of(
            [_bin(alike) for alike in bins.values()],
            sum(cell.latency_sum or 0 for alike in bins.values() for cell in alike),
        ),
    )


def _bin(cells: list[Cell]) -> Bin:
    return Bin(
        sum(cell.messages for cell in cells),
        min(cell.latency_min or 0 for cell in cells),
        max(cell.latency_max or 0 for cell in cells),
    )


def _asked(
    step: timedelta, channel_id: int | None, since: datetime | None, until: datetime | None
) -> dict[str, Any]:
    """Return the values of a question. Raises `InvalidInput` naming the field."""
    if channel_id is not None:
        checks.channel_id("channel_id", channel_id)
    begin = checks.EARLIEST if since is None else checks.instant("since", since)
    end = checks.LATEST if until is None else checks.instant("until", until)
    if end <= begin:
        raise InvalidInput("until", f"{end.isoformat()} is not after since, {begin.isoformat()}")
    begin, end = whole(begin, end, step)
    return {"channel_id": channel_id, "since": begin, "until": end}
