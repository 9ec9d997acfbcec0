"""Rolling back: what was brought goes, unless somebody has changed it since."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from telegram_hybrid.connect import postgres
from telegram_hybrid.errors import NotFound
from telegram_hybrid.hybrid import Hybrid
from telegram_hybrid.legacy.checking import Told
from telegram_hybrid.legacy.report import RolledBack
from telegram_hybrid.legacy.target import Brought, Target, changing, retrying
from telegram_hybrid.model import Change, EventType, MessageKey
from telegram_hybrid.outbox.locks import lock_channels
from telegram_hybrid.schema.postgres.sql import array, fetch, sql

_SOURCES = """
SELECT source FROM "{schema}".legacy_batches UNION SELECT source FROM "{schema}".legacy_channels
ORDER BY 1
"""

_KEYS = """
SELECT message_id, sent_at, nextval('"{schema}".message_version')
FROM "{schema}".message_keys
WHERE channel_id = :channel_id AND message_id > :after AND message_id <= :upto
"""

# What was edited, marked or deleted since has another version, drawn later.
_MESSAGES = """
DELETE FROM "{schema}".messages
WHERE channel_id = :channel_id AND message_id > :after AND message_id <= :upto
  AND sent_at = ANY(CAST(:times AS timestamptz[])) AND version BETWEEN :brought AND :last
RETURNING message_id
"""

# Revisions of messages that go, and those that were added to messages which were here before.
# Those of a message that was edited since belong to what stays.
_REVISIONS = """
DELETE FROM "{schema}".message_revisions
WHERE channel_id = :channel_id AND message_id > :after AND message_id <= :upto
  AND (message_id = ANY(CAST(:gone AS bigint[]))
       OR version >= CAST(:first AS bigint) AND version < CAST(:brought AS bigint))
RETURNING message_id, version
"""

_FORGET = """
WITH key AS (
    DELETE FROM "{schema}".message_keys
    WHERE channel_id = :channel_id AND message_id = ANY(CAST(:gone AS bigint[]))
), logged AS (
    INSERT INTO "{schema}".message_changes
        (channel_id, version, message_id, type, status, changed_at)
    SELECT CAST(:channel_id AS bigint), version, message_id, 'message.deleted', 'deleted',
           clock_timestamp()
    FROM unnest(CAST(:gone AS bigint[]), CAST(:versions AS bigint[])) AS key (message_id, version)
), head AS (
    UPDATE "{schema}".channel_heads SET version = :version, changed_at = clock_timestamp()
    WHERE channel_id = :channel_id AND version < :version
)
DELETE FROM "{schema}".legacy_batches
WHERE source = :source AND channel_id = :channel_id AND after_id = :after
"""

_CHANNELS = """
SELECT channel_id FROM "{schema}".legacy_channels WHERE source = :source ORDER BY channel_id
"""

# A channel that has messages, or that somebody has changed since, stays.
_CHANNEL = """
WITH brought AS (
    DELETE FROM "{schema}".legacy_channels
    WHERE source = :source AND channel_id = :channel_id
    RETURNING channel_id, updated_at
)
DELETE FROM "{schema}".channels AS known USING brought
WHERE known.channel_id = brought.channel_id AND known.updated_at = brought.updated_at
  AND NOT EXISTS (
      SELECT FROM "{schema}".message_keys AS key WHERE key.channel_id = known.channel_id)
RETURNING known.channel_id
"""


def rollback(
    hybrid: Hybrid, *, source: str | None = None, told: Told = lambda *_: None
) -> RolledBack:
    """Remove what `migrate` brought from a source (its `Migrated.source`; None: from all).

    A message that was edited, marked or deleted since it was brought stays as it is, with its
    revisions; so does every message that was stored before, without the earlier texts that were
    added to it. A registered channel goes if it has no messages and nobody has changed it. No
    event is written; caches are told. After a crash, run it again.

    Raises `NotFound` if nothing was brought from there.
    """
    schema = hybrid.settings.database_schema
    with postgres.reads(hybrid.engine) as connection:
        known = list(connection.execute(sql(_SOURCES, schema)).scalars())
    if not known or (source is not None and source not in known):
        said = f"; there is something from {', '.join(known)}" if known else ""
        raise NotFound(f"nothing was brought to schema {schema} from {source or 'anywhere'}{said}")
    done = RolledBack()
    for each in known if source is None else [source]:
        for part in _parts(hybrid, each, told):
            done += part
    return done


def _parts(hybrid: Hybrid, source: str, told: Told) -> Iterator[RolledBack]:
    """Remove batch by batch, the last one first, and then the channels."""
    batches = Target(hybrid, source).batches()
    at, total = 0, sum(batch.messages for batch in batches)
    for batch in reversed(batches):
        yield retrying(partial(_remove, hybrid, source, batch))
        told("rollback", at := at + batch.messages, total)
    with postgres.reads(hybrid.engine) as connection:
        values = {"source": source}
        statement = sql(_CHANNELS, hybrid.settings.database_schema)
        channels = list(connection.execute(statement, values).scalars())
    for channel_id in channels:
        yield retrying(partial(_unregister, hybrid, source, channel_id))


def _remove(hybrid: Hybrid, source: str, batch: Brought) -> RolledBack:
    schema, channel_id = hybrid.settings.database_schema, batch.channel_id
    values: dict[str, Any] = {
        "source": source,
        "channel_id": channel_id,
        "after": batch.after_id,
        "upto": batch.upto_id,
        "first": batch.first_version,
        "brought": batch.brought_version,
        "last": batch.last_version,
    }
    with changing(hybrid, channel_id) as (connection, changes):
        keys = fetch(connection, _KEYS, schema, values)
        values["times"] = sorted({sent_at for _, sent_at, _ in keys})
        removed = {number for (number,) in fetch(connection, _MESSAGES, schema, values)}
        gone = {number: version for number, _, version in keys if number in removed}
        values["gone"], values["versions"] = array(gone), array(gone.values())
        values["version"] = max(gone.values(), default=0)
        revisions = fetch(connection, _REVISIONS, schema, values)
        fetch(connection, _FORGET, schema, values)
        changes += [
            Change(MessageKey(channel_id, number), version, EventType.DELETED)
            for number, version in gone.items()
        ]
    # "Stored" is believed without asking, and is not true any more.
    told = hybrid.cache.forget_seen(channel_id, gone)
    return RolledBack(
        messages=len(gone), revisions=len(revisions), stayed=batch.brought - len(gone), told=told
    )


def _unregister(hybrid: Hybrid, source: str, channel_id: int) -> RolledBack:
    schema = hybrid.settings.database_schema
    values = {"source": source, "channel_id": channel_id}
    with postgres.transaction(hybrid.engine) as connection:
        lock_channels(connection, schema, [channel_id])
        return RolledBack(channels=len(fetch(connection, _CHANNEL, schema, values)))
