"""statistics-90-days: what became of a channel's messages, from rollups and from the messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import psycopg

from benchmarks.benchmark import Aim, Benchmark, Contender, Operation, Plan, Role
from benchmarks.posts import CHANNEL
from benchmarks.recording import recording, replay, statements
from benchmarks.stand import Stand
from telegram_hybrid.hybrid import Hybrid
from telegram_hybrid.testing import make_message

_PSYCOPG = ("psycopg", "psycopg-binary")
_SCHEMA = "bench_counted"
_SINCE = datetime(2026, 1, 1, tzinfo=UTC)
_UNTIL = _SINCE + timedelta(days=90)
_OTHER = -1002
#: Messages of the channel.
_SIZES = (1_000_000, 100_000, 2_000)

# As a channel leaves them: most published after some seconds, some after hours, some failed.
_FILL = """
INSERT INTO {s}.messages (channel_id, message_id, sent_at, version, source, message_type, text,
                          entities, media, metadata, status, received_at, published_at)
SELECT %(channel_id)s, n, sent_at, n, (ARRAY['bot', 'bot', 'bot', 'mtproto'])[n %% 4 + 1],
       CASE WHEN n %% 5 = 0 THEN 'channel_post_comment' ELSE 'channel_post' END,
       repeat('BUY BTCUSDT ', 12), '[]', '[]', '{}',
       CASE WHEN n %% 50 = 0 THEN 'failed' WHEN n %% 51 = 0 THEN 'received' ELSE 'published' END,
       sent_at,
       CASE WHEN n %% 50 > 0 AND n %% 51 > 0
            THEN sent_at + make_interval(secs => exp(sqrt(-2 * ln(1 - random())) * random())) END
FROM (SELECT n, %(since)s + (%(until)s - %(since)s) * n / (%(count)s + 1) AS sent_at
      FROM generate_series(1, %(count)s) AS n) AS made
"""

_RAW = """
SELECT status, source, message_type, count(*),
       avg(latency), min(latency), max(latency),
       percentile_disc(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY latency)
FROM (SELECT status, source, message_type, published_at - received_at AS latency
      FROM {s}.messages
      WHERE channel_id = %(channel_id)s AND sent_at >= %(since)s AND sent_at < %(until)s) AS sent
GROUP BY GROUPING SETS ((status, source, message_type), ())
"""

_ASKED = {"channel_id": CHANNEL, "since": _SINCE, "until": _UNTIL}
#: How many messages of each status.
Answer = dict[str, int]


@attrs.frozen
class _Filled:
    """A store with the channel's messages in it, and a connection of the driver."""

    hybrid: Hybrid
    psycopg: psycopg.Connection[Any]
    count: int


@contextmanager
def _filled(stand: Stand) -> Iterator[_Filled]:
    count = stand.sized(_SIZES)
    with stand.hybrid(_SCHEMA) as hybrid, stand.psycopg(prepared=False) as connection:
        hybrid.messages.save_many(  # so that every day has its partition
            make_message(channel_id=_OTHER, message_id=day, sent_at=_SINCE + timedelta(days=day))
            for day in range(90)
        )
        connection.execute(_FILL.replace("{s}", _SCHEMA), _ASKED | {"count": count})
        for table in ("messages", "message_rollups"):
            connection.execute(f"VACUUM ANALYZE {_SCHEMA}.{table}")
        yield _Filled(hybrid, connection, count)


@contextmanager
def _ours(at: _Filled) -> Iterator[Operation]:
    def call(_: None) -> Answer:
        found = at.hybrid.statistics.summary(CHANNEL, since=_SINCE, until=_UNTIL)
        return {status.value: number for status, number in found.by_status.items()}

    yield _checked(at, call)


@contextmanager
def _by_hand(at: _Filled) -> Iterator[Operation]:
    """The library's own statement."""
    with recording() as steps:
        at.hybrid.statistics.summary(CHANNEL, since=_SINCE, until=_UNTIL)
    asked = statements(steps)

    def call(_: None) -> Answer:
        ((names, rows),) = replay(asked, None, at.psycopg)
        return _by_status(
            (row[names.index("status")], row[names.index("messages")]) for row in rows
        )

    yield _checked(at, call)


@contextmanager
def _raw(at: _Filled) -> Iterator[Operation]:
    """The same figures from the messages, percentiles exact."""

    def call(_: None) -> Answer:
        rows = at.psycopg.execute(_RAW.replace("{s}", _SCHEMA), _ASKED).fetchall()
        return _by_status((row[0], row[3]) for row in rows if row[0] is not None)

    yield _checked(at, call)


def _checked(at: _Filled, call: Any) -> Operation:
    if sum(call(None).values()) != at.count:
        raise RuntimeError(f"of {at.count:,} messages only these were counted: {call(None)}")
    return Operation(call=call)


def _by_status(counted: Any) -> Answer:
    found: Answer = {}
    for status, number in counted:
        found[status] = found.get(status, 0) + number
    return found


ROWS = (
    Benchmark(
        id="statistics-90-days",
        what="a channel's messages of 90 days by status, source, type and latency",
        contenders=(
            Contender("summary", Role.OURS, _ours),
            Contender("psycopg, the same statement", Role.LIMIT, _by_hand, needs=_PSYCOPG),
            Contender("psycopg, from the messages", Role.ALTERNATIVE, _raw, needs=_PSYCOPG),
        ),
        plan=Plan(rounds=10, calls=3, warmup=2),
        quick=Plan(rounds=3, calls=2, warmup=1),
        aim=Aim(alternatives=0.1),
        around=_filled,
    ),
)
