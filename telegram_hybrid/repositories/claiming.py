"""Claims: messages that wait are given to one worker at a time, for as long as its lease lasts.

A claim is a row beside its message, not a lock: it crosses a transaction pooler (P9) and outlives
a broken connection. Its times are the database's clock. `claim_id` is the fencing token: whoever
settles names it, and a claim that has ended settles nothing.

A claim changes no message, so it needs no lock of the channel, no version and no event. Settling
does, and takes them as every other change of a status.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
from sqlalchemy import Connection

from telegram_hybrid.errors import ClaimLost
from telegram_hybrid.model import Claim, Message
from telegram_hybrid.repositories import reading
from telegram_hybrid.repositories.writing import Writer
from telegram_hybrid.schema.postgres.sql import array, fetch

_CLAIM = """
SELECT number, until, {columns}
FROM "{schema}".claim_messages(
    CAST(:worker AS text), CAST(:limit AS integer), CAST(:lease AS double precision),
    CAST(:channels AS bigint[]), CAST(:since AS timestamptz))
""".replace("{columns}", ", ".join(f"(stored).{name}" for name in reading.NAMES))

# The literal has the form of the index of what waits, so that it serves.
_PENDING = """
SELECT {columns} FROM "{schema}".messages AS message
WHERE channel_id = :channel_id AND sent_at >= CAST(:since AS timestamptz)
  AND status IN ('received', 'retrying', 'reprocess_pending')
  AND (:claimed OR NOT EXISTS (
      SELECT FROM "{schema}".message_claims AS claim
      WHERE claim.channel_id = message.channel_id AND claim.message_id = message.message_id
        AND claim.expires_at > clock_timestamp()))
ORDER BY channel_id, sent_at, message_id
LIMIT :limit
""".replace("{columns}", ", ".join(reading.NAMES))

_HELD = """
FROM unnest(
    CAST(:channel_ids AS bigint[]), CAST(:message_ids AS bigint[]), CAST(:claim_ids AS bigint[])
) AS held (channel_id, message_id, claim_id)
"""

# In one order, so that two who lock the same claims never deadlock.
_LOCK = """
SELECT claim.claim_id
{held} JOIN "{schema}".message_claims AS claim USING (channel_id, message_id, claim_id)
WHERE claim.expires_at > clock_timestamp()
ORDER BY claim.channel_id, claim.message_id
FOR UPDATE OF claim
""".replace("{held}", _HELD)

_RENEW = """
WITH ours AS MATERIALIZED (
    {lock}
)
UPDATE "{schema}".message_claims AS claim
SET expires_at = clock_timestamp() + make_interval(secs => CAST(:lease AS double precision))
{held}
WHERE claim.channel_id = held.channel_id AND claim.message_id = held.message_id
  AND claim.claim_id = held.claim_id AND claim.claim_id IN (SELECT claim_id FROM ours)
RETURNING claim.claim_id, claim.expires_at
""".replace("{lock}", _LOCK).replace("{held}", _HELD)

_END = """
WITH ours AS MATERIALIZED (
    {lock}
)
DELETE FROM "{schema}".message_claims AS claim
{held}
WHERE claim.channel_id = held.channel_id AND claim.message_id = held.message_id
  AND claim.claim_id = held.claim_id AND claim.claim_id IN (SELECT claim_id FROM ours)
RETURNING claim.claim_id
""".replace("{lock}", _LOCK.replace("WHERE claim.expires_at > clock_timestamp()\n", "")).replace(
    "{held}", _HELD.replace("FROM unnest", "USING unnest")
)

# Under a number of its own, with which nobody can settle.
_PARK = """
INSERT INTO "{schema}".message_claims (channel_id, message_id, claim_id, worker, expires_at)
SELECT channel_id, message_id, nextval('"{schema}".message_version'), :worker,
       clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision))
FROM unnest(CAST(:channel_ids AS bigint[]), CAST(:message_ids AS bigint[]))
    AS settled (channel_id, message_id)
"""


def claim(
    connection: Connection,
    schema: str,
    worker: str,
    *,
    limit: int,
    lease: float,
    channels: Iterable[int] | None,
    since: datetime | None,
) -> list[Claim]:
    """Claim up to `limit` messages, oldest first.

    To be asked in a transaction of its own, which ends with this statement: whoever else claims
    waits for its end.
    """
    values = {
        "worker": worker,
        "limit": limit,
        "lease": lease,
        "channels": None if channels is None else array(channels),
        "since": since or "-infinity",
    }
    return [
        Claim(
            message=reading.message_of(columns),
            worker=worker,
            claim_id=number,
            expires_at=until.astimezone(UTC),
        )
        for number, until, *columns in fetch(connection, _CLAIM, schema, values)
    ]


def renew(
    connection: Connection, schema: str, claims: Sequence[Claim], lease: float
) -> list[Claim]:
    """Have those that have not ended last `lease` seconds from now; return them."""
    rows = fetch(connection, _RENEW, schema, _keys(claims) | {"lease": lease})
    renewed = dict(rows)
    return [
        attrs.evolve(each, expires_at=renewed[each.claim_id].astimezone(UTC))
        for each in claims
        if each.claim_id in renewed
    ]


def release(connection: Connection, schema: str, claims: Sequence[Claim]) -> int:
    """End those that are still there; return how many those were."""
    return len(fetch(connection, _END, schema, _keys(claims)))


def pending(
    connection: Connection,
    schema: str,
    channel_id: int,
    *,
    limit: int,
    since: datetime | None,
    include_claimed: bool,
) -> list[Message]:
    """Return messages of a channel that wait to be worked on, oldest first."""
    values = {
        "channel_id": channel_id,
        "limit": limit,
        "since": since or "-infinity",
        "claimed": include_claimed,
    }
    return [reading.message_of(row) for row in fetch(connection, _PENDING, schema, values)]


def hold(writer: Writer, claims: Sequence[Claim]) -> None:
    """Keep the claims from ending until the transaction does. Raises `ClaimLost`.

    Their channels are locked.
    """
    held = {claim_id for (claim_id,) in writer.execute(_LOCK, **_keys(claims))}
    if lost := [each.message.key for each in claims if each.claim_id not in held]:
        raise ClaimLost(lost)


def end(writer: Writer, claims: Sequence[Claim], retry_in: float) -> None:
    """End claims that are held, and have nobody claim their messages for `retry_in` seconds."""
    writer.execute(_END, **_keys(claims))
    if retry_in > 0:
        keys: dict[str, Any] = _keys(claims)
        del keys["claim_ids"]
        writer.execute(_PARK, worker=claims[0].worker, seconds=retry_in, **keys)


def _keys(claims: Sequence[Claim]) -> dict[str, str]:
    return {
        "channel_ids": array(each.message.channel_id for each in claims),
        "message_ids": array(each.message.message_id for each in claims),
        "claim_ids": array(each.claim_id for each in claims),
    }
