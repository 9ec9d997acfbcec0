"""Letters: what is kept of a delivered message that cannot be handled; pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import msgspec

from telegram_hybrid.model import Event
from telegram_hybrid.outbox.dead_letters import DeadLetter
from telegram_hybrid.schema.broker import routing_key


def of_event(event: Event) -> DeadLetter:
    """The dead letter of an event that the handler gave up."""
    return DeadLetter(
        event_id=event.event_id,
        type=event.type.value,
        channel_id=event.message.channel_id,
        message_id=event.message.message_id,
        payload=event.message.to_json().decode(),
        traceparent=event.traceparent,
        occurred_at=event.occurred_at,
        sequence=event.sequence,
    )


def of_unreadable(
    body: bytes | str, headers: Mapping[str, Any], message_id: object, key: str
) -> DeadLetter:
    """The dead letter of a message that is no event of ours.

    The payload is an object with the body as text and the headers. The event id is the message's
    own, or one made from the body: the same message gives the same id at every delivery.
    """
    text = body if isinstance(body, str) else body.decode("utf-8", "backslashreplace")
    text = text.encode("utf-8", "backslashreplace").decode()
    return DeadLetter(
        event_id=_event_id(message_id, text),
        type="unreadable",
        channel_id=_channel(key),
        message_id=0,
        payload=msgspec.json.encode(
            {"body": text, "headers": dict(headers)}, enc_hook=repr
        ).decode(),
        traceparent=None,
        occurred_at=datetime.now(UTC),
        sequence=0,
    )


def _event_id(message_id: object, text: str) -> UUID:
    try:
        return UUID(str(message_id))
    except ValueError:
        return uuid5(NAMESPACE_OID, text)


def _channel(key: str) -> int:
    """The channel of a routing key of ours, else 0, which is no channel."""
    prefix = routing_key(0).removesuffix("0")
    digits = key.removeprefix(prefix)
    try:
        channel_id = int(digits)
    except ValueError:
        return 0
    return channel_id if abs(channel_id) < 2**63 else 0
