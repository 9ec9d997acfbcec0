"""The broker's side: names of exchanges and queues, and the envelope around an event.

An envelope is a CloudEvents 1.0 event in binary mode (AMQP protocol binding): the body is the
message as JSON, the attributes travel as headers prefixed "cloudEvents_". Any client of any
language can read it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import attrs

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Event, EventType, Message, checks

CONTENT_TYPE = "application/json"
#: Of the body; a reader refuses a number it does not know.
PAYLOAD_SCHEMA = 1
_PREFIX = "cloudEvents_"


@attrs.frozen(slots=True)
class Topology:
    """What stands on the broker, derived from the name of one exchange."""

    exchange: str = "telegram.messages"

    @property
    def dead_letter_exchange(self) -> str:
        """Where queues send what they give up."""
        return f"{self.exchange}.dlx"

    @property
    def dead_letter_queue(self) -> str:
        """Where those messages wait for a person."""
        return f"{self.exchange}.dlq"


def checked_name(field: str, value: object) -> str:
    """Accept the name of a queue or a routing key: 1 to 255 bytes, printable.

    AMQP has one byte for the length, and kombu on Redis keeps bindings between control characters.
    """
    name = checks.text(field, value)
    if not name:
        raise InvalidInput(field, "a name is needed")
    if not name.isprintable() or len(name.encode()) > 255:
        raise InvalidInput(field, f"{name[:50]!r} is not 1 to 255 bytes of printable text")
    return name


def routing_key(channel_id: int) -> str:
    """The routing key of a channel's events; bind "telegram.channel.#" for all of them."""
    return f"telegram.channel.{channel_id}"


@attrs.frozen(slots=True, kw_only=True)
class Envelope:
    """One event as it travels: what a publisher sends and a consumer gets."""

    routing_key: str
    type: str
    message_id: str
    body: bytes
    headers: dict[str, Any]


def seal(
    *,
    event_id: UUID,
    type: str,  # noqa: A002  (the CloudEvents attribute)
    sequence: int,
    occurred_at: datetime,
    channel_id: int,
    message_id: int,
    payload: str,
    traceparent: str | None,
) -> Envelope:
    """Build the envelope of an outbox row; `payload` is the message's JSON, passed on as it is."""
    headers = {
        f"{_PREFIX}specversion": "1.0",
        f"{_PREFIX}id": str(event_id),
        f"{_PREFIX}type": type,
        f"{_PREFIX}source": f"/telegram/channels/{channel_id}",
        f"{_PREFIX}subject": str(message_id),
        f"{_PREFIX}time": occurred_at.isoformat(),
        f"{_PREFIX}sequence": str(sequence),
        f"{_PREFIX}dataschema": f"telegram-hybrid:message:{PAYLOAD_SCHEMA}",
    }
    if traceparent is not None:
        headers["traceparent"] = traceparent
    return Envelope(
        routing_key=routing_key(channel_id),
        type=type,
        message_id=str(event_id),
        body=payload.encode(),
        headers=headers,
    )


def open_envelope(body: bytes | str, headers: dict[str, Any]) -> Event:
    """Read an event back. Raises `InvalidInput` naming the attribute that is missing or wrong."""
    schema = _attribute(headers, "dataschema")
    if schema != f"telegram-hybrid:message:{PAYLOAD_SCHEMA}":
        raise InvalidInput("dataschema", f"{schema!r} is not known to this version; upgrade it")
    return Event(
        event_id=_parsed("id", _attribute(headers, "id"), UUID),
        type=_parsed("type", _attribute(headers, "type"), EventType),
        sequence=checks.count(
            "sequence", _parsed("sequence", _attribute(headers, "sequence"), int), most=2**63 - 1
        ),
        occurred_at=checks.instant(
            "time", _parsed("time", _attribute(headers, "time"), datetime.fromisoformat)
        ),
        message=Message.from_json(body),
        traceparent=_trace(headers.get("traceparent")),
    )


def _trace(value: object) -> str | None:
    """A broken trace is no reason to give an event up (W3C Trace Context: ignore it)."""
    usable = isinstance(value, str) and value.isascii() and value.isprintable()
    return str(value) if usable else None


def _attribute(headers: dict[str, Any], name: str) -> str:
    value = headers.get(_PREFIX + name)
    if not isinstance(value, str):
        raise InvalidInput(name, f"header {_PREFIX}{name} is missing: not an event of ours")
    return value


def _parsed(name: str, value: str, parse: Any) -> Any:
    try:
        return parse(value)
    except ValueError as error:
        raise InvalidInput(name, f"header {_PREFIX}{name} is {value!r}") from error
