"""Dead letters as rows: events that a relay or a queue's consumer gave up, until they are settled.

A letter is open until it is replayed or discarded. Then it stays as history, for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import attrs
from sqlalchemy import Connection

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Record, checks
from telegram_hybrid.outbox.history import Attempt, read
from telegram_hybrid.schema.postgres.sql import sql
from telegram_hybrid.schema.postgres.tables import shard_of

#: The type of a letter whose message was no event that this version can read.
UNREADABLE = "unreadable"


class Outcome(StrEnum):
    """What became of a dead letter."""

    REPLAYED = "replayed"
    DISCARDED = "discarded"


@attrs.frozen(slots=True, kw_only=True)
class StoredLetter(Record):
    """A dead letter as its row is.

    `queue` is that of the consumer which gave the event up after `attempts`, at `failed_at`; None
    if it was never published. One of type "unreadable" has the message in its payload, as
    {"body": text, "headers": object}. `history` has the last attempts of the relay that gave it up.
    `settled_at`, `outcome` and `note` are None while it is open.
    """

    id: int
    queue: str | None
    attempts: int
    reason: str
    failed_at: datetime
    history: tuple[Attempt, ...] = attrs.field(default=None, converter=read)
    settled_at: datetime | None = None
    outcome: Outcome | None = attrs.field(
        default=None, converter=attrs.converters.optional(Outcome)
    )
    note: str | None = None


def _text(_: object, attribute: attrs.Attribute[Any], value: str) -> None:
    checks.text(attribute.name, value)


@attrs.frozen(slots=True, kw_only=True)
class Choice:
    """Which dead letters: those that meet all that is given; all, if nothing is.

    `queue` "" stands for those that were never published. `since` and `until` bound the time at
    which they were given up: at or after, and before. `reason` is a part of the reason, in any
    case of letters. Raises `InvalidInput` naming the field.
    """

    queue: str | None = attrs.field(default=None, validator=attrs.validators.optional(_text))
    type: str | None = attrs.field(default=None, validator=attrs.validators.optional(_text))
    channel_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    reason: str | None = attrs.field(default=None, validator=attrs.validators.optional(_text))

    def __attrs_post_init__(self) -> None:
        if self.channel_id is not None:
            checks.channel_id("channel_id", self.channel_id)
        for name in ("since", "until"):
            if getattr(self, name) is not None:
                checks.instant(name, getattr(self, name))


#: A place among letters in the order of a replay: channel, sequence, id.
Place = tuple[int, int, int]
FIRST: Place = (-(2**63), -(2**63), 0)


def bury(
    connection: Connection,
    schema: str,
    letter: Record,
    *,
    queue: str,
    attempts: int,
    reason: str,
) -> None:
    """Write the row in this transaction, beside the inbox row that ends the event's retries."""
    values = _values(letter, queue, attempts, reason)
    connection.execute(sql(_BURY, schema), values)


def bury_once(
    connection: Connection,
    schema: str,
    letter: Record,
    *,
    queue: str,
    attempts: int,
    reason: str,
    rejected: bool,
) -> bool:
    """Write the row of a letter from the broker, unless that would tell nothing new.

    So it is if the queue's consumer has dealt with the event, or the letter is there already:
    open, or, if the consumer itself rejected the event (for which it writes a row), settled.
    """
    values = _values(letter, queue, attempts, reason) | {"rejected": rejected}
    return connection.execute(sql(_BURY_ONCE, schema), values).rowcount == 1


def count(connection: Connection, schema: str) -> int:
    """Count the open letters, those that relays gave up included."""
    found: int = connection.execute(sql(_COUNT, schema)).scalar_one()
    return found


def count_chosen(connection: Connection, schema: str, choice: Choice) -> int:
    """Count the open letters of a choice."""
    found: int = connection.execute(sql(_COUNT_CHOSEN, schema), attrs.asdict(choice)).scalar_one()
    return found


def list_letters(
    connection: Connection, schema: str, choice: Choice, *, settled: bool, limit: int, before: int
) -> list[StoredLetter]:
    """Return up to `limit` letters with ids below `before`, newest first."""
    values = {**attrs.asdict(choice), "settled": settled, "limit": limit, "before": before}
    return [StoredLetter(**row._mapping) for row in connection.execute(sql(_LIST, schema), values)]


def get(connection: Connection, schema: str, letter_id: int) -> StoredLetter | None:
    """Return one letter, or None."""
    row = connection.execute(sql(_GET, schema), {"id": letter_id}).one_or_none()
    return None if row is None else StoredLetter(**row._mapping)


def chosen(
    connection: Connection, schema: str, choice: Choice, *, after: Place, limit: int
) -> list[Place]:
    """Return the places of up to `limit` open letters behind `after`, by channel and sequence."""
    values = {**attrs.asdict(choice), "limit": limit}
    values |= dict(zip(("after_channel", "after_sequence", "after_id"), after, strict=True))
    return [tuple(row) for row in connection.execute(sql(_CHOSEN, schema), values)]


def hold(connection: Connection, schema: str, ids: Sequence[int]) -> list[StoredLetter]:
    """Lock those of `ids` that are still open, and return them by channel and sequence."""
    rows = connection.execute(sql(_HOLD, schema), {"ids": list(ids)})
    return [StoredLetter(**row._mapping) for row in rows]


def replayed(connection: Connection, schema: str, ids: Sequence[int]) -> None:
    """Close the letters of events that were put back."""
    connection.execute(
        sql(_SETTLE, schema), {"ids": list(ids), "outcome": Outcome.REPLAYED.value, "note": None}
    )


def discard(connection: Connection, schema: str, ids: Sequence[int], why: str) -> int:
    """Close open letters, and let channels that one of them froze go on; return how many letters
    those were."""
    values = {"ids": list(ids), "outcome": Outcome.DISCARDED.value, "note": why}
    found: int = connection.execute(sql(_DISCARD, schema), values).scalar_one()
    return found


def replayed_frozen(connection: Connection, schema: str, channel_id: int | None) -> None:
    """Close the letters that freeze this channel, or any: their events are about to go on."""
    connection.execute(sql(_REPLAY_FROZEN, schema), {"channel_id": channel_id})


def revive(connection: Connection, schema: str, letters: Sequence[StoredLetter]) -> None:
    """Put the events back into the outbox, under their ids, in the given order.

    One that froze its channel is there still, and goes out in its old place. The caller holds the
    channels' locks. The queues that gave them up forget that they did; for all others the event
    is a duplicate (the inbox keeps what it knows of a letter's event).
    """
    values = {"ids": [letter.id for letter in letters]}
    thawed = set(connection.execute(sql(_THAW, schema), values).scalars())
    letters = [letter for letter in letters if letter.id not in thawed]
    connection.execute(
        sql(_FORGET, schema),
        {
            "queue": [letter.queue for letter in letters],
            "event_id": [letter.event_id for letter in letters],
        },
    )
    connection.execute(
        sql(_REVIVE, schema),
        {
            "shard": [shard_of(letter.channel_id) for letter in letters],
            "event_id": [letter.event_id for letter in letters],
            "type": [letter.type for letter in letters],
            "channel_id": [letter.channel_id for letter in letters],
            "message_id": [letter.message_id for letter in letters],
            "payload": [letter.payload for letter in letters],
            "version": [letter.version for letter in letters],
            "traceparent": [letter.traceparent for letter in letters],
            "occurred_at": [letter.occurred_at for letter in letters],
        },
    )


def checked_id(letter_id: int) -> int:
    """Accept the id of a letter. Raises `InvalidInput`."""
    return checks.count("id", letter_id, least=1, most=2**63 - 1)


def checked_note(note: str) -> str:
    """Accept the reason for a discard: some text. Raises `InvalidInput`."""
    if not checks.text("reason", note).strip():
        raise InvalidInput("reason", "say why the event is discarded; it is kept beside it")
    return note


def _values(letter: Record, queue: str, attempts: int, reason: str) -> dict[str, Any]:
    return {**attrs.asdict(letter), "queue": queue, "attempts": attempts, "reason": reason}


_COLUMNS = """queue, event_id, type, channel_id, message_id, payload, schema_version, traceparent,
     occurred_at, sequence, attempts, reason"""

_STORED = """id, queue, event_id, type, channel_id, message_id, payload::text AS payload,
       schema_version AS version, traceparent, occurred_at, sequence, attempts, reason, failed_at,
       history, settled_at, outcome, note"""

_COUNT = """
SELECT count(*) FROM "{schema}".dead_letters WHERE settled_at IS NULL
"""

_BURY = f"""
INSERT INTO "{{schema}}".dead_letters
    ({_COLUMNS})
VALUES (:queue, :event_id, :type, :channel_id, :message_id, CAST(:payload AS json), :version,
        :traceparent, :occurred_at, :sequence, :attempts, :reason)
"""  # noqa: S608

_BURY_ONCE = f"""
INSERT INTO "{{schema}}".dead_letters
    ({_COLUMNS})
SELECT CAST(:queue AS text), CAST(:event_id AS uuid), CAST(:type AS text),
       CAST(:channel_id AS bigint), CAST(:message_id AS bigint), CAST(:payload AS json),
       CAST(:version AS integer), CAST(:traceparent AS text), CAST(:occurred_at AS timestamptz),
       CAST(:sequence AS bigint), CAST(:attempts AS integer), CAST(:reason AS text)
WHERE NOT EXISTS (
    SELECT FROM "{{schema}}".inbox WHERE queue = :queue AND event_id = CAST(:event_id AS uuid)
) AND NOT EXISTS (
    SELECT FROM "{{schema}}".dead_letters
    WHERE event_id = CAST(:event_id AS uuid) AND queue = :queue
      AND (settled_at IS NULL OR :rejected)
)
"""  # noqa: S608

_CHOICE = """
    (CAST(:queue AS text) IS NULL OR coalesce(queue, '') = :queue)
    AND (CAST(:type AS text) IS NULL OR type = :type)
    AND (CAST(:channel_id AS bigint) IS NULL OR channel_id = :channel_id)
    AND (CAST(:since AS timestamptz) IS NULL OR failed_at >= :since)
    AND (CAST(:until AS timestamptz) IS NULL OR failed_at < :until)
    AND (CAST(:reason AS text) IS NULL OR strpos(lower(reason), lower(:reason)) > 0)
"""

_COUNT_CHOSEN = f"""
SELECT count(*) FROM "{{schema}}".dead_letters WHERE settled_at IS NULL AND {_CHOICE}
"""  # noqa: S608

_LIST = f"""
SELECT {_STORED}
FROM "{{schema}}".dead_letters
WHERE (settled_at IS NOT NULL) = :settled AND id < :before AND {_CHOICE}
ORDER BY id DESC
LIMIT :limit
"""  # noqa: S608

_GET = f"""
SELECT {_STORED} FROM "{{schema}}".dead_letters WHERE id = :id
"""  # noqa: S608

_CHOSEN = f"""
SELECT channel_id, sequence, id
FROM "{{schema}}".dead_letters
WHERE settled_at IS NULL
  AND (channel_id, sequence, id) > (:after_channel, :after_sequence, :after_id)
  AND {_CHOICE}
ORDER BY channel_id, sequence, id
LIMIT :limit
"""  # noqa: S608

# A second replay waits here for the first, and then finds them settled.
_HOLD = f"""
SELECT {_STORED}
FROM "{{schema}}".dead_letters
WHERE id = ANY(CAST(:ids AS bigint[])) AND settled_at IS NULL
ORDER BY channel_id, sequence, id
FOR UPDATE
"""  # noqa: S608

_SETTLE = """
UPDATE "{schema}".dead_letters
SET settled_at = now(), outcome = :outcome, note = CAST(:note AS text)
WHERE id = ANY(CAST(:ids AS bigint[])) AND settled_at IS NULL
"""

# What a letter says of the row that freezes its channel.
FREEZES = """letter.queue IS NULL AND event.id = letter.sequence
    AND event.event_id = letter.event_id AND event.not_before = 'infinity'"""

_DISCARD = f"""
WITH letter AS ({_SETTLE} RETURNING queue, sequence, event_id),
gone AS (DELETE FROM "{{schema}}".outbox AS event USING letter WHERE {FREEZES})
SELECT count(*) FROM letter
"""  # noqa: S608

_THAW = f"""
UPDATE "{{schema}}".outbox AS event SET not_before = NULL, attempts = 0
FROM "{{schema}}".dead_letters AS letter
WHERE letter.id = ANY(CAST(:ids AS bigint[])) AND {FREEZES}
RETURNING letter.id
"""  # noqa: S608

# Of channels that go on by a retry of all that the broker refused.
_REPLAY_FROZEN = f"""
UPDATE "{{schema}}".dead_letters AS letter SET settled_at = now(), outcome = 'replayed'
FROM "{{schema}}".outbox AS event
WHERE letter.settled_at IS NULL AND {FREEZES}
  AND (CAST(:channel_id AS bigint) IS NULL OR event.channel_id = :channel_id)
"""  # noqa: S608

_FORGET = """
DELETE FROM "{schema}".inbox
USING unnest(CAST(:queue AS text[]), CAST(:event_id AS uuid[])) AS letter (queue, event_id)
WHERE inbox.queue = letter.queue AND inbox.event_id = letter.event_id
"""

_REVIVE = """
INSERT INTO "{schema}".outbox
    (shard, event_id, type, channel_id, message_id, payload, schema_version, traceparent,
     occurred_at)
SELECT shard, event_id, type, channel_id, message_id, payload::json, version, traceparent,
       occurred_at
FROM unnest(
    CAST(:shard AS smallint[]), CAST(:event_id AS uuid[]), CAST(:type AS text[]),
    CAST(:channel_id AS bigint[]), CAST(:message_id AS bigint[]), CAST(:payload AS text[]),
    CAST(:version AS integer[]), CAST(:traceparent AS text[]),
    CAST(:occurred_at AS timestamptz[])
) WITH ORDINALITY AS row (shard, event_id, type, channel_id, message_id, payload, version,
                          traceparent, occurred_at, position)
ORDER BY position
"""
