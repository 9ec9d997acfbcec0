"""A stand for delivery: an own schema and exchange on real servers, to feed, relay and consume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
from sqlalchemy import Engine, Row, text

from telegram_hybrid.connect.broker import close_quietly, open_broker
from telegram_hybrid.connect.postgres import open_engine, transaction
from telegram_hybrid.delivery.consumer import Consumer
from telegram_hybrid.delivery.relay import Relay
from telegram_hybrid.model import Event, EventType, Message
from telegram_hybrid.outbox import rows
from telegram_hybrid.outbox.locks import lock_channels
from telegram_hybrid.schema.broker import Envelope, Topology, open_envelope, seal
from telegram_hybrid.schema.postgres import migrate
from telegram_hybrid.settings import Settings
from telegram_hybrid.testing import make_message

ALL = "telegram.channel.#"


@attrs.frozen
class Stand:
    """One database schema and one exchange; `broker` opens a connection to the broker."""

    settings: Settings
    engine: Engine

    @property
    def schema(self) -> str:
        return self.settings.database_schema

    @property
    def topology(self) -> Topology:
        return Topology(self.settings.exchange)

    def broker(self) -> Any:
        return open_broker(self.settings.broker_url or "")

    @property
    def queue(self) -> str:
        return f"{self.settings.exchange}.events"

    def commit(self, messages: Sequence[Message], kind: EventType = EventType.RECEIVED) -> None:
        """Commit one event for each message, as the write path does."""
        with transaction(self.engine) as connection:
            lock_channels(connection, self.schema, {each.channel_id for each in messages})
            rows.append(connection, self.schema, [(kind, each) for each in messages])

    def feed(self, number: int, channels: Iterable[int] = (-1001,), **fields: Any) -> None:
        """Commit `number` events, in turns over the channels, 500 at a time."""
        turns = list(channels)
        messages = [
            make_message(message_id=n, channel_id=turns[n % len(turns)], **fields)
            for n in range(number)
        ]
        for at in range(0, number, 500):
            self.commit(messages[at : at + 500])

    def relay(self, **options: Any) -> Relay:
        return Relay(self.engine, self.schema, self.broker, topology=self.topology, **options)

    def consumer(self, handler: Callable[[Event, Any], object], **options: Any) -> Consumer[Any]:
        options.setdefault("queue", self.queue)
        options.setdefault("bind", ALL)
        return Consumer(
            self.engine,
            self.schema,
            options.pop("broker", self.broker),
            handler=handler,
            topology=self.topology,
            **options,
        )

    def rows(self, query: str, **values: Any) -> list[Row[Any]]:
        """The rows of a query with `{s}` for the schema."""
        with transaction(self.engine) as connection:
            return list(connection.execute(text(query.format(s=self.schema)), values))

    def value(self, query: str, **values: Any) -> Any:
        return self.rows(query, **values)[0][0]

    def execute(self, statement: str, **values: Any) -> None:
        with transaction(self.engine) as connection:
            connection.execute(text(statement.format(s=self.schema)), values)

    def outbox(self) -> list[int]:
        """The ids of the events that wait."""
        return [row.id for row in self.rows("SELECT id FROM {s}.outbox ORDER BY id")]

    def taken(self, queue: str | None = None) -> list[Event]:
        """Everything that waits in a queue, taken out of it."""
        connection = self.broker()
        events = []
        try:
            channel = connection.channel()
            while (message := channel.basic_get(queue or self.queue)) is not None:
                message = channel.message_to_python(message)
                events.append(open_envelope(message.body, message.headers).event())
                channel.basic_ack(message.delivery_tag)
        finally:
            close_quietly(connection)
        return events


@contextmanager
def stand(settings: Settings, broker_url: str | None = None) -> Iterator[Stand]:
    """A stand with migrated tables, which are dropped at the end.

    On the deployment's RabbitMQ the names begin as those that its application may touch.
    """
    if broker_url is not None:
        exchange = f"telegram.{settings.exchange}"
        settings = attrs.evolve(settings, broker_url=broker_url, exchange=exchange)
    engine = open_engine(settings)
    try:
        with engine.begin() as connection:
            migrate.upgrade(connection, schema=settings.database_schema)
        yield Stand(settings, engine)
        with engine.begin() as connection:
            connection.execute(text(f"DROP SCHEMA {settings.database_schema} CASCADE"))
    finally:
        engine.dispose()


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until `condition` holds; fail the test if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {seconds:g} s"
        time.sleep(0.01)


def sealed(event: Event) -> Envelope:
    """An event of a message as a relay sends it, to be sent once more."""
    return seal(
        event_id=event.event_id,
        type=event.type,
        sequence=event.sequence,
        occurred_at=event.occurred_at,
        channel_id=event.channel_id,
        message_id=event.message_id,
        payload=event.payload_json(),
        traceparent=None,
    )


class Handler:
    """Writes each event into a table of its own, in the consumer's transaction."""

    def __init__(self, at: Stand, fail: Callable[[Event], bool] = lambda event: False) -> None:
        self.at = at
        self.fail = fail
        self.calls: list[int] = []
        at.execute("CREATE TABLE {s}.effects (n bigserial, sequence bigint, channel_id bigint)")

    def __call__(self, event: Event, tx: Any) -> None:
        self.calls.append(event.sequence)
        tx.connection.execute(
            text(f"INSERT INTO {self.at.schema}.effects (sequence, channel_id) VALUES (:s, :c)"),
            {"s": event.sequence, "c": event.channel_id},
        )
        if self.fail(event):
            raise LookupError(f"no such thing as {event.message.message_id}")

    def effects(self, channel: int | None = None) -> list[int]:
        rows = self.at.rows("SELECT sequence, channel_id FROM {s}.effects ORDER BY n")
        return [row.sequence for row in rows if channel in (None, row.channel_id)]


def publish(at: Stand, number: int, channels: Any = (-1001,), **queue: Any) -> list[int]:
    """Feed events and relay them into the stand's queue; return their sequence numbers."""
    at.consumer(lambda event, tx: None, **queue).declare()
    at.feed(number, channels)
    ids = at.outbox()
    relay = at.relay(owner="publish")
    while relay.step():
        pass
    relay.close()
    return ids


def bound(at: Stand, *keys: str) -> None:
    """Have the stand's queue stand, bound by these routing keys."""
    at.consumer(lambda event, tx: None, bind=keys or (ALL,)).declare()


def drained(relay: Relay) -> None:
    """Have the relay publish all there is."""
    while relay.step():
        pass
