"""What the consumer cannot handle becomes a dead letter, and blocks nothing."""

from __future__ import annotations

from typing import Any

import pytest
from stand import Handler, Stand, publish, until

from telegram_hybrid.connect.broker import close_quietly
from telegram_hybrid.delivery.backoff import Backoff
from telegram_hybrid.delivery.topology import declare_exchanges
from telegram_hybrid.model import Event

pytestmark = pytest.mark.integration

QUICK = Backoff(first=0.05, most=0.2)


def foreign(
    at: Stand,
    body: bytes,
    headers: dict[Any, Any] | None = None,
    key: Any = "telegram.channel.-7",
    **properties: Any,
) -> None:
    """Publish a message of somebody else's on the way of our events."""
    connection = at.broker()
    channel = connection.channel()
    declare_exchanges(connection, channel, at.topology)
    message = channel.prepare_message(
        body if at.settings.broker_url.startswith("amqp") else body.decode(),
        content_type="text/plain",
        content_encoding="utf-8",
        headers=headers,
        properties=properties,
    )
    channel.basic_publish(message, exchange=at.topology.exchange, routing_key=key)
    close_quietly(connection)


def test_an_event_that_fails_for_good_becomes_one_dead_letter_and_the_channel_goes_on(at: Stand):
    handler = Handler(at, lambda event: event.message.message_id == 1)
    ids = publish(at, 3)
    consumer = at.consumer(handler, max_attempts=3, backoff=QUICK)
    consumer.start()
    until(lambda: consumer.counters.consumed == 2 and consumer.counters.dead == 1)
    assert consumer.stop()
    assert handler.effects() == [ids[0], ids[2]]
    assert handler.calls.count(ids[1]) == 3
    (letter,) = at.rows("SELECT * FROM {s}.dead_letters")
    assert (letter.queue, letter.sequence, letter.attempts) == (at.queue, ids[1], 3)
    assert letter.reason == "LookupError: no such thing as 1"
    assert at.taken() == []
    assert at.value("SELECT count(*) FROM {s}.inbox") == 3


def test_rabbitmq_gets_the_dead_letter_too(rabbit_at: Stand):
    handler = Handler(rabbit_at, lambda event: True)
    (sequence,) = publish(rabbit_at, 1)
    consumer = rabbit_at.consumer(handler, max_attempts=1)
    consumer.start()
    until(lambda: consumer.counters.dead == 1)
    assert consumer.stop()
    found: list[Event] = []
    until(lambda: found.extend(rabbit_at.taken(rabbit_at.topology.dead_letter_queue)) or found)
    assert [event.sequence for event in found] == [sequence]


@pytest.mark.parametrize("body", [b"junk", b'{"channel_id": 0}', b""])
def test_a_message_that_is_no_event_becomes_a_dead_letter_and_blocks_nothing(at: Stand, body):
    handler = Handler(at)
    at.consumer(handler).declare()
    foreign(at, body)
    publish(at, 1)
    consumer = at.consumer(handler)
    consumer.start()
    until(lambda: consumer.counters.dead == 1 and consumer.counters.consumed == 1)
    assert consumer.stop()
    (letter,) = at.rows("SELECT *, payload->>'body' AS body FROM {s}.dead_letters")
    assert letter.body == body.decode()
    assert letter.channel_id == -7
    assert letter.reason.startswith("unreadable: ")


@pytest.mark.parametrize(
    "headers", [{"compression": "zlib"}, {"x": "\ud800"}, {b"\xff": "x"}, {"x": [{"y": b"\xff"}]}]
)
def test_a_message_with_headers_of_whatever_kind_becomes_a_dead_letter(
    rabbit_at: Stand, headers: dict[Any, Any]
):
    # Broken on purpose: the first two ended the consumer, kombu's decoding the one (without
    # `on_decode_error`), and the making of the letter the other (without `_plain`).
    handler = Handler(rabbit_at)
    rabbit_at.consumer(handler).declare()
    foreign(rabbit_at, b"junk", headers)
    publish(rabbit_at, 1)
    consumer = rabbit_at.consumer(handler)
    consumer.start()
    until(lambda: consumer.counters.dead == 1 and consumer.counters.consumed == 1)
    assert consumer.stop()
    (letter,) = rabbit_at.rows("SELECT payload->>'body' AS body, channel_id FROM {s}.dead_letters")
    assert (letter.body, letter.channel_id) == ("junk", -7)


@pytest.mark.parametrize(
    "wrong",
    [
        {"message_id": b"\xff"},
        {"key": b"telegram.channel.\xff"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_message_that_the_driver_cannot_read_becomes_a_dead_letter(
    rabbit_at: Stand, wrong: dict[str, Any]
):
    # Broken on purpose: without `_lenient` and `_Text`, py-amqp's UnicodeDecodeError ended the
    # consumer.
    handler = Handler(rabbit_at)
    rabbit_at.consumer(handler).declare()
    foreign(rabbit_at, b"junk", **wrong)
    publish(rabbit_at, 1)
    consumer = rabbit_at.consumer(handler)
    consumer.start()
    until(lambda: consumer.counters.dead == 1 and consumer.counters.consumed == 1)
    assert consumer.stop()
    assert rabbit_at.value("SELECT payload->>'body' FROM {s}.dead_letters") == "junk"
    connection = rabbit_at.broker()
    until(lambda: connection.default_channel.basic_get(rabbit_at.topology.dead_letter_queue))
    close_quietly(connection)


TAG = '"properties": {"delivery_tag": "t", "delivery_info": {"routing_key": "telegram.channel.-7"}}'
NO_BODY = b'{"properties": {"delivery_tag": "t"}}'
NO_HEADERS = b'{"body": "x", "headers": [], "properties": {"delivery_tag": "t"}}'
FOREIGN_BODY = (
    f'{{"body": {{"__type__": "bytes", "__value__": "x"}}, "headers": {{}}, {TAG}}}'.encode()
)


def test_garbage_that_is_not_even_a_kombu_message_is_buried_too(redis_at: Stand):
    import redis

    handler = Handler(redis_at)
    redis_at.consumer(handler).declare()
    path = redis_at.settings.broker_url.removeprefix("redis+socket://").partition("?")[0]
    with redis.Redis(unix_socket_path=path) as client:
        garbage = (b"\xff\x00", b'{"properties": 3}', b"[]", NO_BODY, NO_HEADERS, FOREIGN_BODY)
        client.lpush(redis_at.queue, *garbage)
    consumer = redis_at.consumer(handler)
    consumer.start()
    # Broken on purpose: with only the delivery tag looked at, NO_BODY ended the consumer.
    until(lambda: consumer.counters.dead == len(garbage))
    assert consumer.stop()
    assert redis_at.value("SELECT count(*) FROM {s}.dead_letters") == len(garbage)
    (letter,) = redis_at.rows(
        "SELECT payload->>'body' AS body FROM {s}.dead_letters WHERE channel_id = -7"
    )
    assert letter.body == "x"  # as kombu's own publisher writes bytes


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("error", [Unprintable(), ValueError("a\0b \ud800"), StopIteration()])
def test_whatever_the_handler_raises_becomes_a_dead_letter(redis_at: Stand, error: Exception):
    # Broken on purpose: with f"{error}" for the reason, the first two ended the consumer.
    def handler(event: Event, tx: Any) -> None:
        raise error

    consumer = redis_at.consumer(handler, max_attempts=1)
    consumer.declare()
    publish(redis_at, 1)
    consumer.start()
    until(lambda: consumer.counters.dead == 1)
    assert consumer.stop()
    assert type(error).__name__ in redis_at.value("SELECT reason FROM {s}.dead_letters")


def test_a_handler_that_exits_ends_the_consumer_and_leaves_the_event(redis_at: Stand):
    # Broken on purpose: with `except Exception` in Worker the thread ended in silence.
    def handler(event: Event, tx: Any) -> None:
        raise SystemExit(3)

    consumer = redis_at.consumer(handler)
    consumer.declare()
    publish(redis_at, 1)
    consumer.start()
    until(lambda: not consumer.running)
    assert isinstance(consumer.failure, SystemExit)
    again = redis_at.consumer(Handler(redis_at))
    again.start()
    until(lambda: again.counters.consumed == 1)
    assert again.stop()
