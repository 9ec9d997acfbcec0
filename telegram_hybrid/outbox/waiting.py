"""What waits in the outbox, and why; and sending frozen channels on before their time."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import attrs
from sqlalchemy import Connection

from telegram_hybrid.outbox import dead_letters
from telegram_hybrid.schema.postgres.sql import sql


@attrs.frozen(slots=True, kw_only=True)
class WaitingEvent:
    """An event that is not published yet.

    One that the broker refused has its words in `last_error`, and holds up its channel until
    `not_before`, or, if that is None, until somebody decides.
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


def waiting(
    connection: Connection,
    schema: str,
    *,
    channel_id: int | None = None,
    refused: bool = False,
    limit: int = 100,
) -> list[WaitingEvent]:
    """Return the oldest events that wait; with `refused`, those that the broker did not take."""
    rows = connection.execute(
        sql(_WAITING, schema), {"channel_id": channel_id, "refused": refused, "limit": limit}
    )
    return [WaitingEvent(**row._mapping) for row in rows]


def retry(connection: Connection, schema: str, *, channel_id: int | None = None) -> int:
    """Let refused events be tried at once, with all their attempts; return how many those are.

    Among them those that became dead letters and froze their channels: the letters are replayed.
    """
    # The letters first, as everybody who settles them locks them.
    dead_letters.replayed_frozen(connection, schema, channel_id)
    return connection.execute(sql(_RETRY, schema), {"channel_id": channel_id}).rowcount


_WAITING = """
SELECT id, event_id, type, channel_id, message_id, occurred_at, attempts,
       nullif(not_before, 'infinity') AS not_before, last_error
FROM "{schema}".outbox
WHERE (CAST(:channel_id AS bigint) IS NULL OR channel_id = :channel_id)
  AND (NOT :refused OR not_before IS NOT NULL)
ORDER BY id
LIMIT :limit
"""

_RETRY = """
UPDATE "{schema}".outbox SET not_before = NULL, attempts = 0
WHERE not_before IS NOT NULL
  AND (CAST(:channel_id AS bigint) IS NULL OR channel_id = :channel_id)
"""
