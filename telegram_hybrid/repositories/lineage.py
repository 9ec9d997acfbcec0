"""Lineage: a basic group and the supergroup that it became are one history.

Telegram writes two service messages, one into each chat, and each names the other chat
(core.telegram.org/api/channel, "Migration"); Desktop exports name none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from telegram_hybrid.errors import InvalidInput, MigrationConflict
from telegram_hybrid.model import Message, MessageKey, MessageType, Migration, checks
from telegram_hybrid.schema.postgres.sql import fetch

#: Of a service message's action: which key names the other chat in the Bot API and in MTProto,
#: and by how much MTProto's bare ids differ from marked ones.
_OTHER = {
    "migrate_to_supergroup": (("migrate_to_chat_id", 0), ("channel_id", -1_000_000_000_000)),
    "migrate_from_group": (("migrate_from_chat_id", 0), ("chat_id", 0)),
}


def told_by(message: Message) -> Migration | None:
    """Return the migration that a service message tells of, if it is one that does.

    What names no other chat, or one that cannot be, tells nothing: the message is stored as it is.
    """
    if message.message_type is not MessageType.SERVICE:
        return None
    action = message.metadata.get("action")
    other = _other(message.metadata, action) if isinstance(action, str) else None
    if other is None:
        return None
    here = message.channel_id
    old, new = (here, other) if action == "migrate_to_supergroup" else (other, here)
    try:
        return Migration(old=old, new=new, migrated_at=message.sent_at)
    except InvalidInput:
        return None


def _other(metadata: dict[str, Any], action: str) -> int | None:
    for key, offset in _OTHER.get(action, ()):
        number = metadata.get(key)
        if type(number) is int and number:
            # MTProto's are bare and positive; a marked one is negative.
            return number if number < 0 else offset - number
    return None


def record(connection: Connection, schema: str, migration: Migration) -> Migration:
    """Write a migration down and register the new chat; return what is recorded then.

    The same migration again changes nothing. Raises `MigrationConflict` for another one of either
    chat. The new chat is registered first, as by a writer that saves its first message: two
    writers, one for each service message, never wait for each other in a circle.
    """
    known = _known(connection, schema, migration)
    if known is None:
        values = {
            "old": migration.old,
            "new": migration.new,
            "migrated_at": migration.migrated_at,
        }
        fetch(connection, _REGISTER_NEW, schema, values)
        fetch(connection, _RECORD, schema, values)
        known = _known(connection, schema, migration)
    if known is None or (known.old, known.new) != (migration.old, migration.new):
        other = f"{known.old} became {known.new}" if known else "nothing: it was just removed"
        raise MigrationConflict(
            f"chat {migration.old} cannot have become {migration.new}: on record is that {other}"
        )
    return known


def record_told(connection: Connection, schema: str, migration: Migration) -> None:
    """Write down what a service message tells, unless something else is on record already."""
    try:
        record(connection, schema, migration)
    except MigrationConflict:
        return


def lineage(connection: Connection, schema: str, channel_id: int) -> tuple[int, ...]:
    """Return the chats whose histories are one with this chat's, oldest first; itself included."""
    values = {"old": channel_id, "new": channel_id}
    rows = fetch(connection, _FIND, schema, values)
    return (rows[0][0], rows[0][1]) if rows else (channel_id,)


def walk(
    chain: tuple[int, ...],
    after: MessageKey | None,
    limit: int,
    read: Callable[[int, int | None, int], list[Message]],
) -> list[Message]:
    """Return up to `limit` messages behind `after` over all chats of a lineage, oldest first.

    `read(channel_id, message_id, limit)` gives those of one chat. Raises `InvalidInput` if `after`
    is in none of them.
    """
    if after is not None and after.channel_id not in chain:
        raise InvalidInput(
            "after", f"chat {after.channel_id} is not of this history: {', '.join(map(str, chain))}"
        )
    start = 0 if after is None else chain.index(after.channel_id)
    found: list[Message] = []
    for channel_id in chain[start:]:
        if len(found) == limit:
            break
        above = after.message_id if after is not None and after.channel_id == channel_id else None
        found += read(channel_id, above, limit - len(found))
    return found


def checked_after(after: object) -> MessageKey | None:
    """Return where a history is to go on. Raises `InvalidInput` naming the field."""
    if after is None:
        return None
    if not isinstance(after, tuple) or len(after) != 2:
        raise InvalidInput("after", f"expected a MessageKey, got {type(after).__name__}")
    return MessageKey(
        checks.channel_id("after.channel_id", after[0]),
        checks.message_id("after.message_id", after[1]),
    )


def _known(connection: Connection, schema: str, migration: Migration) -> Migration | None:
    values = {"old": migration.old, "new": migration.new}
    rows = fetch(connection, _FIND, schema, values)
    if not rows:
        return None
    old, new, migrated_at, recorded_at = rows[0]
    return Migration(old=old, new=new, migrated_at=migrated_at, recorded_at=recorded_at)


_FIND = """
SELECT old_channel_id, new_channel_id, migrated_at, recorded_at
FROM "{schema}".channel_migrations
WHERE old_channel_id = :old OR new_channel_id = :new
"""

# What we call it and whether we follow it is ours and goes on; its names are Telegram's to tell.
_REGISTER_NEW = """
INSERT INTO "{schema}".channels (channel_id, label, description, is_active)
SELECT new.channel_id, known.label, known.description, coalesce(known.is_active, true)
FROM (VALUES (CAST(:new AS bigint))) AS new (channel_id)
LEFT JOIN "{schema}".channels AS known ON known.channel_id = :old
ON CONFLICT (channel_id) DO NOTHING
"""

_RECORD = """
INSERT INTO "{schema}".channel_migrations (old_channel_id, new_channel_id, migrated_at)
VALUES (:old, :new, :migrated_at)
ON CONFLICT DO NOTHING
"""
