"""Verifying: what was brought, compared with the source by counts and checksums.

Both servers work out the same sums from their own rows, in SQL that shares nothing with the code
that moved them: over the content and time of each message, and over every text that it ever had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import attrs
from sqlalchemy import Connection, Engine

from telegram_hybrid.connect import postgres
from telegram_hybrid.hybrid import Hybrid
from telegram_hybrid.legacy.source import Source
from telegram_hybrid.legacy.target import Brought
from telegram_hybrid.schema.postgres.sql import fetch

# 60 bits of a digest: sums of them depend on no order, and no encoding of the server.
_HASH = (
    "CAST(CAST(('x' || left(md5(convert_to(concat_ws(chr(31), {parts}), 'UTF8')), 15))"
    " AS bit(60)) AS bigint)"
)
_MESSAGE = _HASH.replace(
    "{parts}",
    "message_id, CAST(extract(epoch FROM sent_at) * 1000000 AS bigint), text, caption IS NULL, "
    "caption",
)
_SAID = _HASH.replace("{parts}", "message_id, text, caption IS NULL, caption")

# The newest copy by arrival, the earliest time: see `merging`.
_SOURCE = """
WITH copy AS MATERIALIZED (
    SELECT message_id, {id} AS id, coalesce({text}, '') AS text, {caption} AS caption,
           {received_at} AS received_at, {created_at} AS created_at,
           {telegram_date} AS telegram_date
    FROM "{schema}".messages
    WHERE channel_id = ANY(CAST(:spellings AS {type}[]))
      AND message_id > :after AND message_id <= :upto
      AND message_id <> ALL(CAST(:without AS bigint[]))
), message AS (
    SELECT DISTINCT ON (message_id) message_id, text, caption,
           coalesce(min(telegram_date) OVER same, min(received_at) OVER same,
                    min(created_at) OVER same) AS sent_at
    FROM copy WINDOW same AS (PARTITION BY message_id)
    ORDER BY message_id, received_at DESC NULLS LAST, created_at DESC NULLS LAST,
             id COLLATE "C" DESC
), said AS (
    SELECT DISTINCT message_id, text, caption FROM copy
)
SELECT (SELECT count(*) FROM message), (SELECT coalesce(sum({message}), 0) FROM message),
       (SELECT count(*) FROM said), (SELECT coalesce(sum({said}), 0) FROM said)
""".replace("{message}", _MESSAGE).replace("{said}", _SAID)

_BEYOND = """
SELECT count(DISTINCT message_id) FROM "{schema}".messages
WHERE channel_id = ANY(CAST(:spellings AS {type}[]))
  AND message_id > :upto AND message_id < :bound
"""

_KEYS = """
SELECT key.message_id, key.sent_at, message.version
FROM "{schema}".message_keys AS key
LEFT JOIN "{schema}".messages AS message USING (channel_id, message_id, sent_at)
WHERE key.channel_id = :channel_id AND key.message_id > :after AND key.message_id <= :upto
"""

_TARGET = """
WITH message AS MATERIALIZED (
    SELECT message_id, text, caption, sent_at FROM "{schema}".messages
    WHERE channel_id = :channel_id AND message_id > :after AND message_id <= :upto
      AND sent_at BETWEEN CAST(:since AS timestamptz) AND CAST(:until AS timestamptz)
      AND version BETWEEN :first AND :last
), said AS (
    SELECT message_id, text, caption FROM message
    UNION
    SELECT message_id, text, caption FROM "{schema}".message_revisions
    WHERE channel_id = :channel_id AND version BETWEEN :first AND :last
      AND message_id IN (SELECT message_id FROM message)
)
SELECT (SELECT count(*) FROM message), (SELECT coalesce(sum({message}), 0) FROM message),
       (SELECT count(*) FROM said), (SELECT coalesce(sum({said}), 0) FROM said)
""".replace("{message}", _MESSAGE).replace("{said}", _SAID)


@attrs.frozen(slots=True)
class Digest:
    """Messages and texts of a batch: how many, and the sums of their checksums."""

    messages: int = 0
    content: Decimal = Decimal(0)
    texts: int = 0
    said: Decimal = Decimal(0)


@attrs.frozen(slots=True)
class Compared:
    """A batch that was compared: how many messages, how many not, and what differs."""

    verified: int
    changed: int
    problem: str | None


def compare(hybrid: Hybrid, source: Source, spellings: Sequence[str], batch: Brought) -> Compared:
    """Compare what a batch brought and nobody has changed since."""
    schema = hybrid.settings.database_schema
    with _snapshot(hybrid.engine) as connection:
        ours, others = _keys(connection, schema, batch)
        stored = _digest(connection, schema, batch, ours) if ours else Digest()
    said = source.digest(
        _SOURCE,
        spellings=list(spellings),
        after=batch.after_id,
        upto=batch.upto_id,
        without=[*others, *batch.refused],
    )
    changed = batch.brought - len(ours)
    return Compared(stored.messages, changed, _difference(Digest(*said), stored, batch))


def beyond(source: Source, spellings: Sequence[str], upto: int, bound: int) -> int:
    """Return how many messages the source has above what was brought."""
    (count,) = source.digest(_BEYOND, spellings=list(spellings), upto=upto, bound=bound)
    return int(count)


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection whose statements see the same: writers may be at work."""
    with postgres.translated_errors(engine), postgres.connected(engine) as connection:
        connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


def _difference(source: Digest, target: Digest, batch: Brought) -> str | None:
    place = f"ids {batch.after_id + 1} to {batch.upto_id}"
    if source.messages != target.messages:
        return (
            f"{place}: {source.messages:,} messages in the source, {target.messages:,} of them "
            "brought; was the source written to meanwhile?"
        )
    if source.texts != target.texts:
        return f"{place}: {source.texts:,} texts in the source, {target.texts:,} brought"
    if source != target:
        return f"{place}: the checksums of {target.messages:,} messages differ"
    return None


def _digest(
    connection: Connection, schema: str, batch: Brought, times: Sequence[datetime]
) -> Digest:
    values = _range(batch) | {
        "since": min(times),
        "until": max(times),
        "first": batch.brought_version,
        "last": batch.last_version,
    }
    ((*row,),) = fetch(connection, _TARGET, schema, values)
    return Digest(*row)


def _keys(connection: Connection, schema: str, batch: Brought) -> tuple[list[datetime], list[int]]:
    """Return the times of what the batch brought, and the ids that are somebody else's now."""
    ours, others = [], []
    for message_id, sent_at, version in fetch(connection, _KEYS, schema, _range(batch)):
        if version is not None and batch.brought_version <= version <= batch.last_version:
            ours.append(sent_at)
        else:
            others.append(message_id)
    return ours, others


def _range(batch: Brought) -> dict[str, Any]:
    return {"channel_id": batch.channel_id, "after": batch.after_id, "upto": batch.upto_id}
