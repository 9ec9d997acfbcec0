"""Writing what was brought: a batch of one channel is one transaction, with the note of it.

No event is written: consumers are not told of history. `messages.changes` lists it, because the
store changes. The channel's version rises, and what is cached of the batch is dropped before the
commit and after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs
import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from telegram_hybrid.connect import postgres
from telegram_hybrid.errors import (
    CommitUnknown,
    DatabaseError,
    InvalidInput,
    SchemaMismatch,
    WriteConflict,
)
from telegram_hybrid.hybrid import Hybrid
from telegram_hybrid.legacy.batching import Batch
from telegram_hybrid.legacy.merging import Earlier, Merged
from telegram_hybrid.model import Change, Channel, ChannelWrite, EventType, Message
from telegram_hybrid.outbox.locks import lock_channels
from telegram_hybrid.repositories import inserting, reading
from telegram_hybrid.repositories.partitions import Partitions
from telegram_hybrid.schema.postgres import migrate
from telegram_hybrid.schema.postgres.sql import array, fetch, sql

_T = TypeVar("_T")

_BATCH_COLUMNS = (
    "channel_id, after_id, upto_id, rows, messages, brought, revisions, refused, "
    "first_version, brought_version, last_version"
)

_BATCHES = """
SELECT {columns} FROM "{schema}".legacy_batches
WHERE source = :source AND (CAST(:channel_id AS bigint) IS NULL OR channel_id = :channel_id)
ORDER BY channel_id, after_id
""".replace("{columns}", _BATCH_COLUMNS)

_REACHED = """
SELECT coalesce(max(upto_id), -1) FROM "{schema}".legacy_batches
WHERE source = :source AND channel_id = :channel_id
"""

_VERSIONS = """
SELECT nextval('"{schema}".message_version') FROM generate_series(1, :count)
"""

# What a channel's row says here stays: only those that are missing are registered.
_REGISTER = """
WITH registered AS (
    INSERT INTO "{schema}".channels
        (channel_id, label, description, is_active, created_at, updated_at)
    SELECT channel_id, label, description, is_active, coalesce(created_at, now()),
           coalesce(updated_at, created_at, now())
    FROM json_to_recordset(CAST(:channels AS json)) AS row (
        channel_id bigint, label text, description text, is_active boolean,
        created_at timestamptz, updated_at timestamptz)
    ORDER BY channel_id
    ON CONFLICT (channel_id) DO NOTHING
    RETURNING channel_id, updated_at
)
INSERT INTO "{schema}".legacy_channels (source, channel_id, updated_at)
SELECT CAST(:source AS text), channel_id, updated_at FROM registered
ON CONFLICT (source, channel_id) DO UPDATE SET updated_at = excluded.updated_at
"""

# The keys are there when the foreign key of the revisions looks for them, at the statement's end.
_WRITE = """
WITH incoming AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(:messages AS json)) AS row (
        channel_id bigint, message_id bigint, sent_at timestamptz, version bigint, source text,
        message_type text, text text, caption text, entities jsonb, thread_id bigint,
        media_type text, media jsonb, metadata jsonb, status text, received_at timestamptz,
        updated_at timestamptz, queued_at timestamptz, published_at timestamptz,
        failed_at timestamptz, reprocess_requested_at timestamptz, reprocessed_at timestamptz,
        deleted_at timestamptz, delete_reason text, deleted_from text)
), keyed AS (
    INSERT INTO "{schema}".message_keys (channel_id, message_id, sent_at)
    SELECT channel_id, message_id, sent_at FROM incoming
), inserted AS (
    INSERT INTO "{schema}".messages (
        channel_id, message_id, sent_at, version, source, message_type, text, caption, entities,
        thread_id, media_type, media, metadata, status, received_at, updated_at, queued_at,
        published_at, failed_at, reprocess_requested_at, reprocessed_at, deleted_at, delete_reason,
        deleted_from)
    SELECT * FROM incoming
), kept AS (
    INSERT INTO "{schema}".message_revisions
        (channel_id, message_id, version, text, caption, recorded_at, reason)
    SELECT CAST(:channel_id AS bigint), message_id, version, text, caption,
           coalesce(recorded_at, now()), 'legacy_merge'
    FROM json_to_recordset(CAST(:revisions AS json)) AS earlier (
        message_id bigint, version bigint, text text, caption text, recorded_at timestamptz)
    WHERE NOT EXISTS (
        SELECT FROM "{schema}".message_revisions AS known
        WHERE known.channel_id = :channel_id AND known.message_id = earlier.message_id
          AND known.text = earlier.text AND known.caption IS NOT DISTINCT FROM earlier.caption)
    RETURNING version
), registered AS (
    INSERT INTO "{schema}".channels (channel_id) SELECT DISTINCT channel_id FROM incoming
    ON CONFLICT DO NOTHING
    RETURNING channel_id, updated_at
), noted AS (
    INSERT INTO "{schema}".legacy_channels (source, channel_id, updated_at)
    SELECT CAST(:source AS text), channel_id, updated_at FROM registered
    ON CONFLICT (source, channel_id) DO UPDATE SET updated_at = excluded.updated_at
), logged AS (
    INSERT INTO "{schema}".message_changes
        (channel_id, version, message_id, type, status, changed_at)
    SELECT channel_id, version, message_id, 'message.received', status, clock_timestamp()
    FROM incoming
), head AS (
    INSERT INTO "{schema}".channel_heads AS head (channel_id, version, changed_at)
    SELECT channel_id, max(version), clock_timestamp() FROM incoming GROUP BY channel_id
    ON CONFLICT (channel_id) DO UPDATE
    SET version = excluded.version, changed_at = excluded.changed_at
    WHERE head.version < excluded.version
)
INSERT INTO "{schema}".legacy_batches
    (source, channel_id, after_id, upto_id, rows, messages, brought, revisions, refused,
     first_version, brought_version, last_version)
SELECT CAST(:source AS text), CAST(:channel_id AS bigint), CAST(:after_id AS bigint),
       CAST(:upto_id AS bigint), CAST(:rows AS bigint), CAST(:count AS integer),
       (SELECT count(*) FROM incoming), (SELECT count(*) FROM kept),
       CAST(:refused AS bigint[]), CAST(:first_version AS bigint),
       CAST(:brought_version AS bigint), CAST(:last_version AS bigint)
RETURNING {columns}
""".replace("{columns}", _BATCH_COLUMNS)


@attrs.frozen(slots=True)
class Brought:
    """A batch that is committed, as `legacy_batches` has it."""

    channel_id: int
    after_id: int
    upto_id: int
    rows: int
    messages: int
    brought: int
    revisions: int
    refused: Sequence[int]
    first_version: int
    brought_version: int
    last_version: int


class Target:
    """The store that messages of one source are brought to."""

    def __init__(self, hybrid: Hybrid, source: str) -> None:
        self._hybrid = hybrid
        self._source = source
        self._schema = hybrid.settings.database_schema
        direct = postgres.open_engine(hybrid.settings, pooled=False, direct=True)
        interval = hybrid.settings.partition_interval
        self._partitions = Partitions(direct, self._schema, interval)

    def batches(self, channel_id: int | None = None) -> list[Brought]:
        """Return what was brought of a channel, or of all, by channel and id."""
        values = {"source": self._source, "channel_id": channel_id}
        with postgres.reads(self._hybrid.engine) as connection:
            rows = connection.execute(sql(_BATCHES, self._schema), values).all()
        return [Brought(*row) for row in rows]

    def reached(self, channel_id: int) -> int:
        """Return the message id up to which a channel was brought; -1 for none of it."""
        with postgres.reads(self._hybrid.engine) as connection:
            return self._reached(connection, channel_id)

    def register(self, channels: Sequence[Channel]) -> None:
        """Register the channels that are not registered here."""
        said = [{name: getattr(channel, name) for name in _CHANNEL} for channel in channels]
        values = {"channels": _json(said), "source": self._source}
        with postgres.transaction(self._hybrid.engine) as connection:
            connection.execute(sql(_REGISTER, self._schema), values)

    def write(self, channel_id: int, batch: Batch) -> Brought:
        """Bring a batch, in one transaction with the note of it.

        Raises `DatabaseError` when somebody else is bringing the same.
        """
        self._partitions.ensure(each.message.sent_at for each in batch.merged)
        with changing(self._hybrid, channel_id) as (connection, changes):
            if self._reached(connection, channel_id) != batch.after_id:
                raise DatabaseError(
                    f"channel {channel_id}: another process is bringing {self._source}, too: "
                    "let it come to its end"
                )
            ids = [each.message.message_id for each in batch.merged]
            known = reading.stored_ids(connection, self._schema, channel_id, ids)
            stored = reading.by_ids(connection, self._schema, channel_id, sorted(known))
            return self._write(connection, channel_id, batch, known, stored, changes)

    def _write(
        self,
        connection: Connection,
        channel_id: int,
        batch: Batch,
        known: set[int],
        stored: dict[int, Message],
        changes: list[Change],
    ) -> Brought:
        present = [each for each in batch.merged if each.message.message_id in known]
        fresh = [each for each in batch.merged if each.message.message_id not in known]
        late = [
            (each.message.message_id, content)
            for each in present
            if each.message.message_id in stored
            for content in _others(each, stored[each.message.message_id])
        ]
        count = len(late) + sum(1 + len(each.earlier) for each in fresh)
        # One more, that the ranges have a beginning where there is nothing.
        drawn = fetch(connection, _VERSIONS, self._schema, {"count": count + 1})
        versions = iter(sorted(version for (version,) in drawn))
        first = brought = next(versions)
        revisions = [_revision(message_id, next(versions), content) for message_id, content in late]
        if revisions:
            brought = revisions[-1]["version"] + 1
        rows = []
        for each in fresh:
            message_id = each.message.message_id
            # The earlier contents have the lower versions.
            revisions += [_revision(message_id, next(versions), item) for item in each.earlier]
            version = next(versions)
            rows.append(_row(each, version))
            changes.append(Change(each.message.key, version, EventType.RECEIVED))
        values = {
            "source": self._source,
            "channel_id": channel_id,
            "after_id": batch.after_id,
            "upto_id": batch.upto_id,
            "rows": batch.rows,
            "count": len(batch.merged),
            "refused": array(batch.refused),
            "first_version": first,
            "brought_version": brought,
            "last_version": max(version for (version,) in drawn),
            "messages": _json(rows),
            "revisions": _json(revisions),
        }
        try:
            ((*row,),) = fetch(connection, _WRITE, self._schema, values)
        except IntegrityError:
            # A partition that was there before has been dropped: the next try makes it again.
            self._partitions.forget()
            raise
        return Brought(*row)

    def _reached(self, connection: Connection, channel_id: int) -> int:
        values = {"source": self._source, "channel_id": channel_id}
        ((reached,),) = fetch(connection, _REACHED, self._schema, values)
        return int(reached)


def retrying(write: Callable[[], _T]) -> _T:
    """Run a transaction again that met a deadlock, or a partition that was dropped just then."""
    for attempt in Retrying(
        retry=retry_if_exception_type(WriteConflict),
        stop=stop_after_attempt(5),
        wait=wait_random_exponential(multiplier=0.02, max=0.5),
        reraise=True,
    ):
        with attempt:
            result = write()
    return result


@contextmanager
def changing(hybrid: Hybrid, channel_id: int) -> Iterator[tuple[Connection, list[Change]]]:
    """Lock a channel for one transaction, and have the caches told of the changes made in it."""
    changes: list[Change] = []
    writes: list[ChannelWrite] = []
    try:
        with postgres.transaction(hybrid.engine) as connection:
            lock_channels(connection, hybrid.settings.database_schema, [channel_id])
            yield connection, changes
            if changes:
                version = max(change.version for change in changes)
                writes = [ChannelWrite(channel_id, version, tuple(changes))]
            hybrid.cache.mark(writes)
    except CommitUnknown:
        hybrid.cache.mark(writes)
        raise
    hybrid.cache.invalidate(writes)


def check_target(hybrid: Hybrid) -> None:
    """Raise `InvalidInput` or `SchemaMismatch` where nothing can be brought to."""
    schema = hybrid.settings.database_schema
    with postgres.reads(hybrid.engine) as connection:
        ours, theirs = connection.execute(sql(_TABLES, schema)).one()
        if theirs and not ours:
            raise InvalidInput(
                "to_schema",
                f"schema {schema} of the target holds the original's tables; name another one "
                "(--to-schema, TELEGRAM_DB_SCHEMA) and run: python -m telegram_hybrid migrate up",
            )
        status = migrate.status(connection, schema=schema)
    if not status.is_current:
        raise SchemaMismatch(
            f"schema {schema} of the target is at {status.current or 'nothing'}, this library "
            f"needs {status.head}; run: TELEGRAM_DB_SCHEMA={schema} python -m telegram_hybrid "
            "migrate up"
        )


_TABLES = """
SELECT to_regclass('"{schema}".message_keys') IS NOT NULL,
       to_regclass('"{schema}".messages') IS NOT NULL
"""

_CHANNEL = ("channel_id", "label", "description", "is_active", "created_at", "updated_at")


def _others(each: Merged, stored: Message) -> Iterator[Earlier]:
    """Yield the contents of the original that a stored message does not have."""
    message = each.message
    for content in (*each.earlier, Earlier(message.text, message.caption, message.received_at)):
        if (content.text, content.caption) != (stored.text, stored.caption):
            yield content


def _revision(message_id: int, version: int, earlier: Earlier) -> dict[str, Any]:
    return {
        "message_id": message_id,
        "version": version,
        "text": earlier.text,
        "caption": earlier.caption,
        "recorded_at": earlier.at,
    }


def _row(merged: Merged, version: int) -> dict[str, Any]:
    message = merged.message
    return (
        inserting.as_row(message)
        | merged.times
        | {
            "version": version,
            "status": message.status.value,
            "received_at": message.received_at,
            "deleted_at": message.deleted_at,
            "delete_reason": message.delete_reason,
            "deleted_from": merged.deleted_from,
        }
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
