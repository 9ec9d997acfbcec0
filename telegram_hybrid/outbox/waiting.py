"""What waits in the outbox, and why; and sending frozen channels on before their time."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import attrs
from sqlalchemy import Connection

from telegram_hybrid.outbox import dead_letters
from telegram_hybrid.outbox.history import Attempt, read
from telegram_hybrid.schema.postgres.sql import sql


@attrs.frozen(slots=True, kw_only=True)
class WaitingEvent:
    """An event that is not published yet.

    One that the broker refused has its words in `last_error`, and holds up its channel until
    `not_before`, or, if that is None, until somebody decides; `history` has its last refusals.
    `payload` is JSON of the schema's `version`, or None in a list.
    """

    id: int
    event_id: UUID
    type: str
    channel_id: int
    message_id: int | None
    occurred_at: datetime
    attempts: int
    not_before: datetime | None
    last_error: str | None
    version: int = 1
    traceparent: str | None = None
    history: tuple[Attempt, ...] = attrs.field(default=None, converter=read)
    payload: str | None = None


def waiting(
    connection: Connection,
    schema: str,
    *,
    channel_id: int | None = None,
    type: str | None = None,  # noqa: A002  (the column's name)
    refused: bool = False,
    limit: int = 100,
) -> list[WaitingEvent]:
    """Return the oldest events that wait; with `refused`, those that the broker did not take."""
    values = {"channel_id": channel_id, "type": type, "refused": refused, "limit": limit}
    rows = connection.execute(sql(_WAITING, schema), values)
    return [WaitingEvent(**row._mapping) for row in rows]


def get(connection: Connection, schema: str, number: int) -> WaitingEvent | None:
    """Return one event with its payload, or None if it does not wait."""
    row = connection.execute(sql(_GET, schema), {"id": number}).one_or_none()
    return None if row is None else WaitingEvent(**row._mapping)


def retry(connection: Connection, schema: str, *, channel_id: int | None = None) -> int:
    """Let refused events be tried at once, with all their attempts; return how many those are.

    Among them those that became dead letters and froze their channels: the letters are replayed.
    """
    # The letters first, as everybody who settles them locks them.
    dead_letters.replayed_frozen(connection, schema, channel_id)
    return connection.execute(sql(_RETRY, schema), {"channel_id": channel_id}).rowcount


_COLUMNS = """id, event_id, type, channel_id, message_id, occurred_at, attempts,
       nullif(not_before, 'infinity') AS not_before, last_error, schema_version AS version,
       traceparent, history"""

_GET = f"""
SELECT {_COLUMNS}, payload::text AS payload FROM "{{schema}}".outbox WHERE id = :id
"""  # noqa: S608

_WAITING = f"""
SELECT {_COLUMNS}
FROM "{{schema}}".outbox
WHERE (CAST(:channel_id AS bigint) IS NULL OR channel_id = :channel_id)
  AND (CAST(:type AS text) IS NULL OR type = :type)
  AND (NOT :refused OR not_before IS NOT NULL)
ORDER BY id
LIMIT :limit
"""  # noqa: S608

# Not what has frozen its channel since the letters were replayed: its own is open.
_RETRY = f"""
UPDATE "{{schema}}".outbox AS event SET not_before = NULL, attempts = 0
WHERE not_before IS NOT NULL
  AND (CAST(:channel_id AS bigint) IS NULL OR channel_id = :channel_id)
  AND NOT EXISTS (SELECT FROM "{{schema}}".dead_letters AS letter
                  WHERE letter.settled_at IS NULL AND {dead_letters.FREEZES})
"""  # noqa: S608
