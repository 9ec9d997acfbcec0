"""Claims: what a relay reads from the shards that it holds, and how it settles each row.

Reading takes no lock: the lease keeps others away. Every settlement is fenced by the lease's
epochs, so a relay that lost a shard meanwhile changes nothing there; the new holder then sees the
row again and repeats the event, which is allowed, where losing it is not (P3). And by the lease's
server: on another one, promoted without the last commits, the rows may be other events.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import attrs
from sqlalchemy import Connection

from telegram_hybrid.outbox.history import noted
from telegram_hybrid.outbox.leases import Lease
from telegram_hybrid.outbox.rows import OutboxRow
from telegram_hybrid.schema.postgres.sql import array, fetch, sql


@attrs.frozen(slots=True)
class Backlog:
    """How many events wait to be published, and since when the oldest does (UTC, None: none).

    `age` says the latter in seconds, by the database's clock. `frozen` channels wait behind an
    event that was refused.
    """

    events: int
    oldest: datetime | None
    age: float | None = None
    frozen: int = 0


@attrs.frozen(slots=True)
class Postponement:
    """Try `row` again in `delay` seconds, and nothing else of its channel before that."""

    row: OutboxRow
    error: str
    delay: float


@attrs.frozen(slots=True)
class Burial:
    """Give `row` up: move it to the dead letters, so that its channel goes on.

    With `freeze` it also stays in the outbox, in its channel's way, until somebody replays or
    discards the letter.
    """

    row: OutboxRow
    reason: str
    freeze: bool = False


@attrs.frozen(slots=True)
class Ask:
    """Read of `shard` up to `room` rows behind the id `floor`."""

    shard: int
    floor: int
    room: int


@attrs.frozen(slots=True)
class Found:
    """What a look found: `rows` by id, without those of frozen channels.

    `frozen` is {shard: the lowest id of a row that waits for its next attempt}. Every transaction
    with an id below `ended` had ended before the look.
    """

    rows: list[OutboxRow]
    frozen: dict[int, int]
    ended: int


def pending(
    connection: Connection, schema: str, asks: Sequence[Ask], *, known: Sequence[int] = ()
) -> Found:
    """Read what is asked for, without rows that are `known`.

    A channel with a postponed row is frozen whole, until that row's time has come: its later
    events must not overtake.
    """
    if not asks:
        return Found([], {}, 0)
    values = {
        "shards": array(ask.shard for ask in asks),
        "floors": array(ask.floor for ask in asks),
        "rooms": array(ask.room for ask in asks),
        "known": array(known),
    }
    rows: list[OutboxRow] = []
    lowest: dict[int, int] = {}
    ended = 0
    for kind, shard, *event in fetch(connection, _PENDING, schema, values):
        if kind == "event":
            rows.append(OutboxRow.from_tuple(event))
        elif kind == "frozen":
            lowest[shard] = event[0]
        else:
            ended = event[0]
    return Found(sorted(rows, key=attrgetter("id")), lowest, ended)


def delete(
    connection: Connection, schema: str, lease: Lease, ids: Sequence[int]
) -> tuple[int, int]:
    """Delete published rows of shards that `lease` still holds.

    Returns how many those were, and the number of this transaction. A crash of the database may
    bring them back, which repeats their events: their loss is not worth a wait for the disk.
    """
    if not ids:
        return 0, 0
    values = _fence(lease) | {"ids": array(ids)}
    for count, number in fetch(connection, _DELETE, schema, values):
        return count, int(number)
    return 0, 0


def postpone(
    connection: Connection, schema: str, lease: Lease, postponements: Sequence[Postponement]
) -> int:
    """Count an attempt and freeze the channel of each row; return how many rows that changed."""
    if not postponements:
        return 0
    values = {
        "ids": [item.row.id for item in postponements],
        "attempts": [item.row.attempts for item in postponements],
        "errors": [item.error for item in postponements],
        "delays": [item.delay for item in postponements],
    }
    return _changed(connection, schema, _POSTPONE, lease, values)


def bury(connection: Connection, schema: str, lease: Lease, burials: Sequence[Burial]) -> int:
    """Make rows dead letters; return how many that made."""
    made = 0
    for statement, freeze in ((_BURY, False), (_FREEZE, True)):
        some = [item for item in burials if item.freeze is freeze]
        if some:
            values = {
                "ids": [item.row.id for item in some],
                "attempts": [item.row.attempts for item in some],
                "reasons": [item.reason for item in some],
            }
            made += _changed(connection, schema, statement + _LETTERS, lease, values)
    return made


def backlog(connection: Connection, schema: str) -> Backlog:
    """Count what waits; reads the whole outbox, so ask every few seconds at most."""
    return Backlog(*connection.execute(sql(_BACKLOG, schema)).one())


def _changed(
    connection: Connection, schema: str, statement: str, lease: Lease, values: dict[str, Any]
) -> int:
    return connection.execute(sql(_FENCE + statement, schema), _fence(lease) | values).rowcount


def _fence(lease: Lease) -> dict[str, Any]:
    return {
        "owner": lease.owner,
        "shards": array(lease.epochs.keys()),
        "epochs": array(lease.epochs.values()),
        "server": lease.server,
    }


# One statement, and so one snapshot.
_PENDING = """
SELECT * FROM "{schema}".pending_events(
    CAST(:shards AS smallint[]), CAST(:floors AS bigint[]), CAST(:rooms AS integer[]),
    CAST(:known AS bigint[])
)
"""

_DELETE = """
SELECT * FROM "{schema}".delete_events(
    CAST(:owner AS text), CAST(:shards AS smallint[]), CAST(:epochs AS bigint[]),
    CAST(:ids AS bigint[])
)
WHERE coalesce(pg_postmaster_start_time() = CAST(:server AS timestamptz), true)
"""

# FOR SHARE: a relay that takes the shard over waits for this transaction, and one that has taken
# it over already is seen here.
_FENCE = """
WITH ours AS MATERIALIZED (
    SELECT lease.shard
    FROM "{schema}".relay_shards AS lease
    JOIN unnest(CAST(:shards AS smallint[]), CAST(:epochs AS bigint[])) AS held (shard, epoch)
      ON held.shard = lease.shard AND held.epoch = lease.epoch
    WHERE lease.owner = :owner
      AND coalesce(pg_postmaster_start_time() = CAST(:server AS timestamptz), true)
    FOR SHARE OF lease
)
"""

# Whoever does not know whether this was done does it again: by its attempts a row is the one that
# was decided on. Else a letter of a frozen channel would come twice.
_POSTPONE = f"""
UPDATE "{{schema}}".outbox AS event
SET attempts = event.attempts + 1,
    last_error = later.error,
    history = {noted("event.history", "later.error")},
    not_before = clock_timestamp() + make_interval(secs => later.delay)
FROM unnest(CAST(:ids AS bigint[]), CAST(:attempts AS integer[]), CAST(:errors AS text[]),
            CAST(:delays AS double precision[])) AS later (id, attempts, error, delay)
WHERE event.id = later.id AND event.attempts = later.attempts
  AND event.shard IN (SELECT shard FROM ours)
"""  # noqa: S608

_BURY = f"""
, given_up AS (
    DELETE FROM "{{schema}}".outbox AS event
    USING unnest(CAST(:ids AS bigint[]), CAST(:attempts AS integer[]), CAST(:reasons AS text[]))
        AS dead (id, attempts, reason)
    WHERE event.id = dead.id AND event.attempts = dead.attempts
      AND event.shard IN (SELECT shard FROM ours)
    RETURNING event.*, dead.reason, event.attempts + 1 AS tried,
              {noted("event.history", "dead.reason")} AS told
)
"""  # noqa: S608

# An infinite time says that only somebody's decision ends it.
_FREEZE = f"""
, given_up AS (
    UPDATE "{{schema}}".outbox AS event
    SET attempts = event.attempts + 1, last_error = dead.reason, not_before = 'infinity',
        history = {noted("event.history", "dead.reason")}
    FROM unnest(CAST(:ids AS bigint[]), CAST(:attempts AS integer[]), CAST(:reasons AS text[]))
        AS dead (id, attempts, reason)
    WHERE event.id = dead.id AND event.attempts = dead.attempts
      AND event.shard IN (SELECT shard FROM ours)
    RETURNING event.*, dead.reason, event.attempts AS tried, event.history AS told
)
"""  # noqa: S608

_LETTERS = """
INSERT INTO "{schema}".dead_letters
    (queue, event_id, type, channel_id, message_id, payload, schema_version, traceparent,
     occurred_at, sequence, attempts, reason, history)
SELECT NULL, event_id, type, channel_id, message_id, payload, schema_version, traceparent,
       occurred_at, id, tried, reason, told
FROM given_up
"""

_BACKLOG = """
SELECT count(*), min(occurred_at),
       CAST(extract(epoch FROM clock_timestamp() - min(occurred_at)) AS double precision),
       count(DISTINCT channel_id) FILTER (WHERE not_before > clock_timestamp())
FROM "{schema}".outbox
"""
