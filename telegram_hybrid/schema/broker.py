"""The broker's side: names of exchanges and queues, and the envelope around an event.

An envelope is a CloudEvents 1.0 event in binary mode (AMQP protocol binding): the body is the
payload as JSON, the attributes travel as headers prefixed "cloudEvents_". Any client of any
language can read it. The attribute `dataschema` names schema and version of the payload:
"telegram-hybrid:message:1" for all events of messages, "telegram-hybrid:<topic>:<version>" for
those of somebody's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import attrs

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import checks
from telegram_hybrid.model.event import Record
from telegram_hybrid.model.upcasting import MAX_VERSION, MESSAGE

CONTENT_TYPE = "application/json"
_PREFIX = "cloudEvents_"
_SCHEMA = "telegram-hybrid:"
_SOURCE = "/telegram/channels/"


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
    message_id: int | None,
    payload: str,
    traceparent: str | None,
    version: int = 1,
) -> Envelope:
    """Build the envelope of an outbox row; `payload`, of this `version`, is passed on as it is.

    Without a `message_id` it is an event of somebody's own, and its topic the routing key.
    """
    schema = type if message_id is None else MESSAGE
    headers = {
        f"{_PREFIX}specversion": "1.0",
        f"{_PREFIX}id": str(event_id),
        f"{_PREFIX}type": type,
        f"{_PREFIX}source": f"{_SOURCE}{channel_id}",
        f"{_PREFIX}time": occurred_at.isoformat(),
        f"{_PREFIX}sequence": str(sequence),
        f"{_PREFIX}dataschema": f"{_SCHEMA}{schema}:{version}",
    }
    if message_id is not None:
        headers[f"{_PREFIX}subject"] = str(message_id)
    if traceparent is not None:
        headers["traceparent"] = headers[f"{_PREFIX}traceparent"] = traceparent
    return Envelope(
        routing_key=type if message_id is None else routing_key(channel_id),
        type=type,
        message_id=str(event_id),
        body=payload.encode(),
        headers=headers,
    )


def open_envelope(body: bytes | str, headers: Mapping[str, Any]) -> Record:
    """Take an event out, unread: its payload may be of any version.

    Raises `InvalidInput` naming the attribute that is missing or wrong.
    """
    type_ = checked_name("type", _attribute(headers, "type"))
    schema, version = _schema(headers)
    if schema == MESSAGE:
        number = _parsed("subject", _attribute(headers, "subject"), int)
        message_id = checks.message_id("subject", number)
    elif schema == checks.topic("type", type_):
        message_id = None
    else:
        raise InvalidInput("dataschema", f"{schema!r} is neither {MESSAGE!r} nor {type_!r}")
    return Record(
        event_id=_parsed("id", _attribute(headers, "id"), UUID),
        type=type_,
        channel_id=channel_of(headers),
        message_id=message_id,
        payload=body if isinstance(body, str) else _parsed("body", body, bytes.decode),
        version=version,
        traceparent=_trace(headers),
        occurred_at=checks.instant(
            "time", _parsed("time", _attribute(headers, "time"), datetime.fromisoformat)
        ),
        sequence=checks.count(
            "sequence", _parsed("sequence", _attribute(headers, "sequence"), int), most=2**63 - 1
        ),
    )


def channel_of(headers: Mapping[str, Any]) -> int:
    """The channel that an envelope's headers name. Raises `InvalidInput`."""
    source = _attribute(headers, "source")
    if not source.startswith(_SOURCE):
        raise InvalidInput("source", f"{source!r} does not begin with {_SOURCE!r}")
    return checks.channel_id("source", _parsed("source", source.removeprefix(_SOURCE), int))


def _schema(headers: Mapping[str, Any]) -> tuple[str, int]:
    told = _attribute(headers, "dataschema")
    name, _, version = told.removeprefix(_SCHEMA).rpartition(":")
    if not (told.startswith(_SCHEMA) and name and version.isascii() and version.isdecimal()):
        raise InvalidInput("dataschema", f"{told!r} is not {_SCHEMA}NAME:VERSION")
    return name, checks.count("dataschema", int(version[:20]), least=1, most=MAX_VERSION)


def _trace(headers: Mapping[str, Any]) -> str | None:
    """A broken trace is no reason to give an event up (W3C Trace Context: ignore it)."""
    for name in ("traceparent", f"{_PREFIX}traceparent"):
        with suppress(InvalidInput):
            return checks.traceparent(name, headers.get(name))
    return None


def _attribute(headers: Mapping[str, Any], name: str) -> str:
    value = headers.get(_PREFIX + name)
    if not isinstance(value, str):
        raise InvalidInput(name, f"header {_PREFIX}{name} is missing: not an event of ours")
    return value


def _parsed(name: str, value: Any, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(value)
    except ValueError as error:
        raise InvalidInput(name, f"{value[:100]!r} cannot be read") from error
