"""Event: what happened, as writers publish and consumers receive it."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import attrs
import msgspec

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import checks
from telegram_hybrid.model.message import Message, MessageKey
from telegram_hybrid.model.upcasting import MAX_VERSION, MESSAGE, UPCASTERS


class EventType(StrEnum):
    """What happened to a message; the `type` property of a broker message."""

    RECEIVED = "message.received"
    EDITED = "message.edited"
    DELETED = "message.deleted"
    STATUS_CHANGED = "message.status_changed"


_MESSAGE_TYPES = {each.value: each for each in EventType}
_UNPUBLISHED = UUID(int=0)


def _type(value: Any) -> Any:
    return _MESSAGE_TYPES.get(value, value) if isinstance(value, str) else value


def _channel_of(event: Event) -> Any:
    if isinstance(event.payload, Message):
        return event.payload.channel_id
    raise InvalidInput("channel_id", "of which channel? Its events come in the order of commits")


def _current(event: Event) -> int:
    schema = MESSAGE if isinstance(event.payload, Message) else event.type
    return UPCASTERS.current(schema)


@attrs.frozen(slots=True)
class Event:
    """Something that happened in a channel: a change of a message, or what you `publish`.

        tx.publish(th.Event("orders.opened", {"side": "BUY"}, channel_id=-1001649127710))

    `type` is an `EventType` and `payload` the `Message` as that change left it; or `type` is a
    topic of your own, which queues bind, and `payload` a JSON object of at most 262,144 bytes.
    `version` is that of the payload's shape: the current one, unless you say otherwise
    (`upcaster`). `traceparent` (W3C) names the span that it happened in.

    `event_id` (UUIDv7), `sequence` and `occurred_at` (UTC, the database's clock) are given to it
    when it is published. `event_id` is the same at every delivery. `sequence` grows with each
    event of a channel, in commit order, with gaps.

    Raises `InvalidInput` naming the field.
    """

    type: str = attrs.field(converter=_type)
    payload: Any
    channel_id: int = attrs.field(default=attrs.Factory(_channel_of, takes_self=True), kw_only=True)
    version: int = attrs.field(default=attrs.Factory(_current, takes_self=True), kw_only=True)
    traceparent: str | None = attrs.field(default=None, kw_only=True)
    event_id: UUID = attrs.field(default=_UNPUBLISHED, kw_only=True)
    sequence: int = attrs.field(default=0, kw_only=True)
    occurred_at: datetime = attrs.field(factory=lambda: datetime.now(UTC), kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Check every field; the payload becomes a copy of plain JSON."""
        if isinstance(self.payload, Message):
            checks.member(EventType, "type", self.type)
            if self.channel_id != self.payload.channel_id:
                problem = f"{self.channel_id} is not the message's, {self.payload.channel_id}"
                raise InvalidInput("channel_id", problem)
        elif isinstance(self.type, EventType):
            problem = f"{self.type} tells of a Message, got {type(self.payload).__name__}"
            raise InvalidInput("payload", problem)
        else:
            checks.topic("type", self.type)
            checks.channel_id("channel_id", self.channel_id)
            _set(self, "payload", checks.json_object("payload", self.payload))
        checks.count("version", self.version, least=1, most=MAX_VERSION)
        if self.traceparent is not None:
            checks.traceparent("traceparent", self.traceparent)
        if not isinstance(self.event_id, UUID):
            problem = f"expected a UUID, got {type(self.event_id).__name__}"
            raise InvalidInput("event_id", problem)
        checks.count("sequence", self.sequence, most=2**63 - 1)
        _set(self, "occurred_at", checks.instant("occurred_at", self.occurred_at))

    @property
    def message(self) -> Message:
        """The message as the change left it; its `version` tells which of two is the newer.

        Raises `InvalidInput` for an event of your own, which has none.
        """
        if isinstance(self.payload, Message):
            return self.payload
        raise InvalidInput("message", f"an event of {self.type!r} has none; see its payload")

    @property
    def key(self) -> MessageKey:
        """The identity of the message. Raises `InvalidInput` as `message` does."""
        return self.message.key

    @property
    def message_id(self) -> int | None:
        """The id of the message; None for an event of your own."""
        return self.payload.message_id if isinstance(self.payload, Message) else None

    def payload_json(self) -> str:
        """The payload as JSON."""
        if isinstance(self.payload, Message):
            return self.payload.to_json().decode()
        return msgspec.json.encode(self.payload).decode()


_set = object.__setattr__


@attrs.frozen(slots=True, kw_only=True)
class Record:
    """An event as it is kept and carried: `payload` is JSON of the schema's `version`.

    `message_id` is None for an event of somebody's own. `event()` reads it.
    """

    event_id: UUID
    type: str
    channel_id: int
    message_id: int | None
    payload: str
    version: int
    traceparent: str | None
    occurred_at: datetime
    sequence: int

    @property
    def schema(self) -> str:
        """What the payload is: "message", or the topic."""
        return self.type if self.message_id is None else MESSAGE

    def event(self) -> Event:
        """Read it, in the current version.

        Raises `UnknownVersion`, or `InvalidInput` for a payload that is none of its schema.
        """
        payload: Any
        version = UPCASTERS.current(self.schema)
        if self.message_id is None or self.version != version:
            payload = UPCASTERS.bring(self.schema, self.version, self._decoded())
            if self.message_id is not None:
                payload = Message.from_json(msgspec.json.encode(payload))
        else:
            payload = Message.from_json(self.payload)
        return Event(
            self.type,
            payload,
            channel_id=self.channel_id,
            version=version,
            traceparent=self.traceparent,
            event_id=self.event_id,
            sequence=self.sequence,
            occurred_at=self.occurred_at,
        )

    def _decoded(self) -> dict[str, Any]:
        try:
            return _OBJECT.decode(self.payload)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
            raise InvalidInput("payload", f"not a JSON object: {error}") from error


_OBJECT = msgspec.json.Decoder(dict[str, Any])


@attrs.frozen(slots=True)
class Change:
    """What a transaction did to one message; `message` is how it left it, where that is known."""

    key: MessageKey
    version: int
    type: EventType
    message: Message | None = None


@attrs.frozen(slots=True)
class ChannelWrite:
    """What one transaction did to one channel: what the cache has to know of it.

    The transaction brought the channel from version `previous` (None where that is not known) to
    `version`, the highest of the rows it wrote.
    """

    channel_id: int
    version: int
    changes: tuple[Change, ...]
    previous: int | None = None
