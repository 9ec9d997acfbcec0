"""Reading rows: always by key first, so that only the partitions concerned are touched.

A point lookup that knows sent_at as a value stays flat in the number of partitions, where a
join with the keys grows with every partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from telegram_hybrid.cache import Loaded
from telegram_hybrid.model import Entity, Media, Message, MessageKey, Revision, RevisionReason
from telegram_hybrid.outbox.locks import lock_prefix
from telegram_hybrid.schema.postgres.ranges import oldest_time
from telegram_hybrid.schema.postgres.sql import array, fetch, sql
from telegram_hybrid.schema.redis.values import PAGE

_KEYS_BY_ID = """
SELECT message_id, sent_at FROM "{schema}".message_keys
WHERE channel_id = :channel_id AND message_id = ANY(CAST(:message_ids AS bigint[]))
"""

_KEYS_BELOW = """
SELECT message_id, sent_at FROM "{schema}".message_keys
WHERE channel_id = :channel_id AND message_id < :bound
  AND sent_at >= CAST(:since AS timestamptz)
ORDER BY message_id DESC LIMIT :limit
"""

_KEYS_ABOVE = """
SELECT message_id, sent_at FROM "{schema}".message_keys
WHERE channel_id = :channel_id AND message_id > :bound
  AND sent_at >= CAST(:since AS timestamptz)
ORDER BY message_id LIMIT :limit
"""

_KEYS_BETWEEN = """
SELECT message_id, sent_at FROM "{schema}".message_keys
WHERE channel_id = :channel_id AND message_id BETWEEN :lo AND :hi
ORDER BY message_id DESC
"""

NAMES = (
    "channel_id",
    "message_id",
    "sent_at",
    "text",
    "caption",
    "entities",
    "edited_at",
    "message_type",
    "source",
    "sender_id",
    "sender_name",
    "reply_to_id",
    "thread_id",
    "grouped_id",
    "media",
    "metadata",
    "status",
    "version",
    "received_at",
    "deleted_at",
    "delete_reason",
    "status_reason",
)
_COLUMNS = ", ".join(NAMES)

# A range of times as values closes the other partitions. A list of times would, too, but before
# PostgreSQL 17 each of a hundred is looked for with each of a hundred ids, or the table scanned.
_ROWS = """
SELECT {columns}
FROM "{schema}".messages
WHERE channel_id = :channel_id AND message_id = ANY(CAST(:message_ids AS bigint[]))
  AND sent_at BETWEEN :first AND :last
""".replace("{columns}", _COLUMNS)

# The times as values close the partitions in which none of the messages is. One probe of the
# primary key each: LIMIT keeps the planner from reading all rows of a partition for them.
_ROWS_OF_KEYS = """
SELECT {columns}
FROM unnest(CAST(:channel_ids AS bigint[]), CAST(:message_ids AS bigint[]),
            CAST(:sent_at AS timestamptz[])) AS key (of_channel, number, at)
CROSS JOIN LATERAL (
    SELECT * FROM "{schema}".messages
    WHERE channel_id = of_channel AND message_id = number AND sent_at = at
      AND sent_at = ANY(CAST(:times AS timestamptz[]))
    LIMIT 1) AS message
""".replace("{columns}", _COLUMNS)

# By key first as well: see the function's migration.
_READ = """
SELECT {columns}, as_of, quiet
FROM "{schema}".read_messages(
    CAST(:channel_id AS bigint), CAST(:message_ids AS bigint[]), CAST(:prefix AS text))
""".replace("{columns}", ", ".join(f"(stored).{name}" for name in NAMES))

# For writers: and when what is stored was last said again.
_READ_AND_SAID = """
SELECT {columns}, (
    SELECT known.said_at FROM "{schema}".message_confirmations AS known
    WHERE known.channel_id = (stored).channel_id AND known.message_id = (stored).message_id)
FROM "{schema}".read_messages(
    CAST(:channel_id AS bigint), CAST(:message_ids AS bigint[]), NULL)
""".replace("{columns}", ", ".join(f"(stored).{name}" for name in NAMES))

_REVISIONS = """
SELECT text, caption, edited_at, version, recorded_at, reason
FROM "{schema}".message_revisions
WHERE channel_id = :channel_id AND message_id = :message_id
ORDER BY edited_at NULLS FIRST, version
"""

Key = tuple[int, datetime]
#: Messages within so long are read by one range of times; others key by key.
NEAR = timedelta(days=31)


def by_ids(
    connection: Connection, schema: str, channel_id: int, message_ids: Sequence[int]
) -> dict[int, Message]:
    """Return the stored ones of `message_ids`, deleted ones included, in one statement."""
    found: dict[int, Message] = _read(connection, schema, channel_id, message_ids, None).value
    return found


def with_said(
    connection: Connection, schema: str, channel_id: int, message_ids: Sequence[int]
) -> list[tuple[Message, datetime | None]]:
    """Return what `by_ids` does, each with the time when its content was last said again."""
    values = {"channel_id": channel_id, "message_ids": array(message_ids)}
    rows = fetch(connection, _READ_AND_SAID, schema, values)
    return [(message_of(row[:-1]), row[-1]) for row in rows if row[0] is not None]


def guarded(
    connection: Connection, schema: str, channel_id: int, message_ids: Sequence[int]
) -> Loaded:
    """Return what `by_ids` does, and what guards it in the cache (see `Loaded`).

    To be asked in a transaction of its own, which ends with this statement.
    """
    return _read(connection, schema, channel_id, message_ids, lock_prefix(schema))


def _read(
    connection: Connection,
    schema: str,
    channel_id: int,
    message_ids: Sequence[int],
    prefix: str | None,
) -> Loaded:
    values = {"channel_id": channel_id, "message_ids": array(message_ids), "prefix": prefix}
    rows = fetch(connection, _READ, schema, values)  # at least one, of nulls if need be
    as_of, quiet = rows[0][-2:]
    found = [message_of(row[:-2]) for row in rows if row[0] is not None]
    return Loaded({message.message_id: message for message in found}, as_of, quiet)


def by_keys(
    connection: Connection, schema: str, keys: Mapping[MessageKey, datetime]
) -> dict[MessageKey, Message]:
    """Return the stored ones of messages of any channels, deleted ones included.

    `keys` are theirs, with the `sent_at` under which each is stored.
    """
    values = {
        "channel_ids": array(key.channel_id for key in keys),
        "message_ids": array(key.message_id for key in keys),
        "sent_at": list(keys.values()),
        "times": sorted(set(keys.values())),
    }
    found = (message_of(row) for row in fetch(connection, _ROWS_OF_KEYS, schema, values))
    return {message.key: message for message in found}


def stored_ids(
    connection: Connection, schema: str, channel_id: int, message_ids: Sequence[int]
) -> set[int]:
    """Return which of `message_ids` are stored, deleted ones included."""
    return {number for number, _ in _keys(connection, schema, channel_id, message_ids)}


def newest(
    connection: Connection,
    schema: str,
    channel_id: int,
    *,
    below: int = 2**63 - 1,
    limit: int,
    include_deleted: bool = False,
) -> list[Message]:
    """Return up to `limit` messages with ids below `below`, newest first."""
    return _page(connection, schema, channel_id, _KEYS_BELOW, below, limit, include_deleted)


def oldest(
    connection: Connection,
    schema: str,
    channel_id: int,
    *,
    above: int = -1,
    limit: int,
    include_deleted: bool = False,
) -> list[Message]:
    """Return up to `limit` messages with ids above `above`, oldest first."""
    return _page(connection, schema, channel_id, _KEYS_ABOVE, above, limit, include_deleted)


def page(connection: Connection, schema: str, channel_id: int, number: int) -> list[Message]:
    """Return all messages of a page of the cache that are not deleted, newest first."""
    lo = number * PAGE
    values = {"channel_id": channel_id, "lo": lo, "hi": lo + PAGE - 1}
    keys = fetch(connection, _KEYS_BETWEEN, schema, values)
    rows = _rows(connection, schema, channel_id, keys)
    found = (rows[message_id] for message_id, _ in keys if message_id in rows)
    return [message for message in found if message.deleted_at is None]


def revisions(
    connection: Connection, schema: str, channel_id: int, message_id: int
) -> list[Revision]:
    """Return the earlier contents of a message, oldest first."""
    rows = connection.execute(
        sql(_REVISIONS, schema),
        {"channel_id": channel_id, "message_id": message_id},
    )
    return [
        Revision(
            text=row.text,
            caption=row.caption,
            edited_at=row.edited_at and row.edited_at.astimezone(UTC),
            version=row.version,
            recorded_at=row.recorded_at.astimezone(UTC),
            reason=row.reason and RevisionReason(row.reason),
        )
        for row in rows
    ]


def _page(
    connection: Connection,
    schema: str,
    channel_id: int,
    statement: str,
    bound: int,
    limit: int,
    include_deleted: bool,
) -> list[Message]:
    """Walk the keys from `bound` on until `limit` messages that are wanted were found.

    Keys of retired messages are met once: then the walk keeps to what there are partitions for.
    """
    found: list[Message] = []
    since: datetime | None = None
    while len(found) < limit:
        wanted = limit - len(found)
        values = {
            "channel_id": channel_id,
            "bound": bound,
            "limit": wanted,
            "since": since or "-infinity",
        }
        keys = fetch(connection, statement, schema, values)
        rows = _rows(connection, schema, channel_id, keys)
        found += [
            rows[number]
            for number, _ in keys
            if number in rows and (include_deleted or rows[number].deleted_at is None)
        ]
        if len(keys) < wanted:
            break
        bound = keys[-1][0]
        if since is None and len(rows) < len(keys):
            since = oldest_time(connection, schema)
    return found


def _keys(
    connection: Connection, schema: str, channel_id: int, message_ids: Sequence[int]
) -> list[Key]:
    values = {"channel_id": channel_id, "message_ids": array(message_ids)}
    return fetch(connection, _KEYS_BY_ID, schema, values)


def _rows(
    connection: Connection, schema: str, channel_id: int, keys: Sequence[Key]
) -> dict[int, Message]:
    if not keys:
        return {}
    times = [sent_at for _, sent_at in keys]
    first, last = min(times), max(times)
    if last - first > NEAR:
        far = {MessageKey(channel_id, number): sent_at for number, sent_at in keys}
        return {key.message_id: each for key, each in by_keys(connection, schema, far).items()}
    values = {
        "channel_id": channel_id,
        "message_ids": array(number for number, _ in keys),
        "first": first,
        "last": last,
    }
    found = (message_of(row) for row in fetch(connection, _ROWS, schema, values))
    return {message.message_id: message for message in found}


def message_of(columns: Sequence[Any]) -> Message:
    """Build a message from the columns of NAMES, in that order."""
    fields = dict(zip(NAMES, columns, strict=True))
    fields["entities"] = tuple(_parts(Entity, fields["entities"]))
    fields["media"] = tuple(_parts(Media, fields["media"]))
    return Message(**fields)


def _parts(kind: Any, values: list[dict[str, Any]]) -> Iterator[Any]:
    return (kind(**value) for value in values)
