"""What a team would write on SQLAlchemy's ORM, or on advanced-alchemy above it.

Less than we do, in their favour: one plain table with the key as its primary key (no partitions,
no key table, no revisions, no row versions, no lock that keeps the events of a channel in order)
and an outbox whose payload is text. Engines as SQLAlchemy makes them, server-side prepared
statements included, and msgspec for JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import uuid_utils.compat
from sqlalchemy import BigInteger, DateTime, Engine, MetaData, create_engine, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.stand import Stand
from telegram_hybrid.model import Message
from telegram_hybrid.model.message import present


def models(schema: str, *mixins: type) -> tuple[Any, Any]:
    """The message's class and the event's, with tables in `schema`."""

    class Base(DeclarativeBase):
        metadata = MetaData(schema=schema)
        type_annotation_map = {datetime: DateTime(timezone=True), int: BigInteger}  # noqa: RUF012

    class StoredMessage(*mixins, Base):  # type: ignore[misc]
        __tablename__ = "messages"
        channel_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        message_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        sent_at: Mapped[datetime]
        source: Mapped[str]
        message_type: Mapped[str]
        text: Mapped[str]
        caption: Mapped[str | None]
        entities: Mapped[list[Any]] = mapped_column(JSONB)
        edited_at: Mapped[datetime | None]
        sender_id: Mapped[int | None]
        sender_name: Mapped[str | None]
        reply_to_id: Mapped[int | None]
        thread_id: Mapped[int | None]
        grouped_id: Mapped[int | None]
        media_type: Mapped[str | None]
        media: Mapped[list[Any]] = mapped_column(JSONB)
        # `metadata` is taken by SQLAlchemy.
        extra: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB)
        status: Mapped[str]
        received_at: Mapped[datetime] = mapped_column(server_default=func.now())

    class StoredEvent(*mixins, Base):  # type: ignore[misc]
        __tablename__ = "outbox"
        id: Mapped[int] = mapped_column(primary_key=True)
        event_id: Mapped[UUID]
        type: Mapped[str]
        channel_id: Mapped[int]
        message_id: Mapped[int]
        payload: Mapped[str]
        occurred_at: Mapped[datetime] = mapped_column(server_default=func.now())

    return StoredMessage, StoredEvent


def message_columns(message: Message) -> dict[str, Any]:
    """The fields of a stored message."""
    return {
        "channel_id": message.channel_id,
        "message_id": message.message_id,
        "sent_at": message.sent_at,
        "source": message.source.value,
        "message_type": message.message_type.value,
        "text": message.text,
        "caption": message.caption,
        "entities": [present(each) for each in message.entities],
        "edited_at": message.edited_at,
        "sender_id": message.sender_id,
        "sender_name": message.sender_name,
        "reply_to_id": message.reply_to_id,
        "thread_id": message.thread_id,
        "grouped_id": message.grouped_id,
        "media_type": message.media_type,
        "media": [present(each) for each in message.media],
        "extra": message.metadata,
        "status": "received",
    }


def event_columns(message: Message) -> dict[str, Any]:
    """The fields of its event."""
    return {
        "event_id": uuid_utils.compat.uuid7(),
        "type": "message.received",
        "channel_id": message.channel_id,
        "message_id": message.message_id,
        "payload": message.to_json().decode(),
    }


@contextmanager
def tables(stand: Stand, schema: str, model: Any) -> Iterator[Engine]:
    """An engine with the tables of that model, which are dropped at the end."""
    engine = create_engine(
        stand.database_url.replace("postgresql://", "postgresql+psycopg://", 1),
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
        json_deserializer=msgspec.json.decode,
    )
    drop = text(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    try:
        with engine.begin() as connection:
            connection.execute(drop)
            connection.execute(text(f"CREATE SCHEMA {schema}"))
            model.metadata.create_all(connection)
        yield engine
        with engine.begin() as connection:
            connection.execute(drop)
    finally:
        engine.dispose()
