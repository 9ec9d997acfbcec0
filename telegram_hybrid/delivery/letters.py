"""Letters: what is kept of a delivered message that cannot be handled; pure."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import attrs
import msgspec

from telegram_hybrid.errors import InvalidInput, UnknownVersion
from telegram_hybrid.model import Record
from telegram_hybrid.outbox.dead_letters import UNREADABLE
from telegram_hybrid.schema.broker import channel_of, open_envelope, routing_key


def of_message(
    body: bytes | str, headers: Mapping[str, Any], message_id: object, key: str
) -> Record:
    """The dead letter of a message: the event in it as it came, or else the message itself."""
    try:
        return opened(body, headers)
    except InvalidInput:
        return of_unreadable(body, headers, message_id, key)


def opened(body: bytes | str, headers: Mapping[str, Any]) -> Record:
    """Take an event out that the outbox could hold again, of whatever version.

    Raises `InvalidInput`.
    """
    record = open_envelope(body, headers)
    try:
        msgspec.json.decode(record.payload)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise InvalidInput("payload", f"not JSON: {error}") from error
    return record


def of_unreadable(
    body: bytes | str, headers: Mapping[str, Any], message_id: object, key: str
) -> Record:
    """The dead letter of a message that is no event of ours.

    The payload is an object with the body as text and the headers. The event id is the message's
    own, or one made from the body: the same message gives the same id at every delivery.
    """
    text = _text(body)
    return Record(
        event_id=_event_id(message_id, text),
        type=UNREADABLE,
        channel_id=_channel(headers, key),
        message_id=None,
        payload=msgspec.json.encode({"body": text, "headers": _shown(headers)}).decode(),
        version=1,
        traceparent=None,
        occurred_at=datetime.now(UTC),
        sequence=0,
    )


def _text(value: bytes | str) -> str:
    text = value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
    return text.encode("utf-8", "backslashreplace").decode()


def _shown(headers: Mapping[str, Any]) -> Any:
    """The headers as JSON can hold them; any client of the broker may have written them."""
    try:
        return _plain(dict(headers))
    except RecursionError:
        return {"": "nested too deeply to be kept"}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain_key(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, str | bytes):
        return _text(value)
    if (
        value is None
        or isinstance(value, float)
        or (isinstance(value, int) and -(2**63) <= value < 2**64)
    ):
        return value
    return str(value)


def _plain_key(key: Any) -> str:
    return _text(key if isinstance(key, str | bytes) else str(key))


@attrs.frozen(slots=True)
class Death:
    """Why the broker dead-lettered a message, in its own words ("rejected", "delivery_limit", ..),
    out of which queue, and how often that has happened."""

    queue: str
    reason: str
    count: int

    @property
    def rejected(self) -> bool:
        """Whether a consumer did it, which has written a row itself if it is one of ours."""
        return self.reason == "rejected"

    def told(self) -> str:
        """The reason for a person."""
        if self.reason == "delivery_limit":
            return (
                "delivery_limit: handed out as often as the queue allows, and never acknowledged; "
                "its consumers may have died of it"
            )
        return f"{self.reason}: by the broker" if not self.rejected else "rejected by a consumer"


def death_of(headers: Mapping[str, Any], unknown_queue: str) -> Death:
    """Read the latest death of a message from its "x-death" header (RabbitMQ, "Dead Letter
    Exchanges"); one without it died in `unknown_queue`."""
    deaths = headers.get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths else None
    if not isinstance(latest, dict):
        return Death(unknown_queue, "unknown", 0)
    queue, reason, count = (latest.get(name) for name in ("queue", "reason", "count"))
    return Death(
        str(queue or unknown_queue), str(reason or "unknown"), count if type(count) is int else 0
    )


def _event_id(message_id: object, text: str) -> UUID:
    try:
        return UUID(str(message_id))
    except ValueError:
        return uuid5(NAMESPACE_OID, text)


def _channel(headers: Mapping[str, Any], key: str) -> int:
    """The channel of an envelope or a routing key of ours, else 0, which is no channel."""
    with suppress(InvalidInput):
        return channel_of(headers)
    prefix = routing_key(0).removesuffix("0")
    digits = key.removeprefix(prefix)
    try:
        channel_id = int(digits)
    except ValueError:
        return 0
    return channel_id if abs(channel_id) < 2**63 else 0


def why_unreadable(error: InvalidInput) -> str:
    """Why a message is no event here, with what an upcaster raised."""
    cause = error.__cause__ if isinstance(error, UnknownVersion) else None
    more = f": {told(cause)}" if isinstance(cause, Exception) else ""
    return f"unreadable: {error}{more}"


def told(error: Exception) -> str:
    """What a handler raised, as text that a log and a row can hold, whatever its class does."""
    try:
        text = str(error)
    except Exception as failure:  # noqa: BLE001  (its __str__ may raise anything; both are named)
        text = f"<str() of it raised {type(failure).__name__}>"
    text = text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
    return f"{type(error).__name__}: {text}"
