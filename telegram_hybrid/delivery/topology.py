"""Topology: declaring what stands on the broker, idempotently, from both sides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import amqp
import kombu

from telegram_hybrid.connect.broker import is_amqp, place, translated_errors
from telegram_hybrid.errors import TopologyConflict
from telegram_hybrid.schema.broker import Topology

#: How often a quorum queue hands out an event again before it dead-letters it by itself: the way
#: out for an event that kills the whole process. Far above a handler's own attempts, because
#: every event that a killed consumer had prefetched counts as handed out.
DELIVERY_LIMIT = 50


def declare_exchanges(connection: kombu.Connection, channel: Any, topology: Topology) -> None:
    """Declare the exchange, its dead-letter exchange, and the queue behind that one.

    A user who may not make them, and so not delete them either, is content that they stand.
    Raises `TopologyConflict` if one stands there with other properties, or `BrokerError`.
    """
    exchanges = (topology.exchange, topology.dead_letter_exchange)
    queue = topology.dead_letter_queue
    with _declaring(connection):
        if not is_amqp(connection) or _may_make(connection, exchanges[0]):
            for exchange in exchanges:
                channel.exchange_declare(exchange, "topic", durable=True, auto_delete=False)
            _declare(connection, channel, queue, {})
            channel.queue_bind(queue, topology.dead_letter_exchange, routing_key="#")
        else:
            for exchange in exchanges:
                channel.exchange_declare(exchange, "topic", passive=True)
            channel.queue_declare(queue, passive=True)


def _may_make(connection: kombu.Connection, exchange: str) -> bool:
    """Whether the user may: asked on a channel of its own, because the broker closes it if not."""
    with connection.channel() as channel:
        try:
            channel.exchange_declare(exchange, "topic", durable=True, auto_delete=False)
        except amqp.exceptions.AccessRefused:
            return False
        return True


def declare_queue(
    connection: kombu.Connection,
    channel: Any,
    topology: Topology,
    queue: str,
    bind: Sequence[str],
    *,
    single_active: bool = False,
) -> None:
    """Declare a consumer's queue and bind it to the exchange by each routing key of `bind`.

    A quorum queue with a delivery limit that dead-letters to the topology's exchange; on Redis a
    list, whose dead letters are only rows. With `single_active`, the broker hands events to one
    of its consumers at a time (RabbitMQ, "Single Active Consumer"); Redis knows nothing of it.
    Bindings that are no longer wanted stay. Raises `TopologyConflict` if a queue of this name
    stands there with other properties.
    """
    arguments: dict[str, Any] = {
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": topology.dead_letter_exchange,
    }
    if single_active:
        arguments["x-single-active-consumer"] = True
    with _declaring(connection):
        _declare(connection, channel, queue, arguments)
        for routing_key in bind:
            channel.queue_bind(queue, topology.exchange, routing_key=routing_key)


def depths(
    connection: kombu.Connection, topology: Topology, queues: Iterable[str]
) -> dict[str, tuple[int, int]]:
    """Return for each of `queues` that stands there, and for the dead-letter queue: how many
    events are ready in it, and how many consumers it has.

    Declares nothing. On Redis, which cannot tell an empty queue from none, these are the queues
    that are bound to the topology's exchanges. Raises `BrokerError`.
    """
    with translated_errors(connection):
        if not is_amqp(connection):
            channel = connection.default_channel
            exchanges = (topology.exchange, topology.dead_letter_exchange)
            bound = {queue for each in exchanges for *_, queue in channel.get_table(each)}
            return {queue: channel.depth(queue) for queue in sorted(bound)}
        found = {}
        for queue in sorted({topology.dead_letter_queue, *queues}):
            # A refusal closes the channel with it, so each queue gets its own.
            with connection.channel() as channel, suppress(amqp.exceptions.NotFound):
                found[queue] = _standing(channel, queue)
        return found


def standing(connection: kombu.Connection, channel: Any, queue: str) -> tuple[int, int]:
    """Return how many events are ready in a queue of RabbitMQ's, and how many consumers it has.

    Raises `BrokerError`, also if there is no such queue.
    """
    with translated_errors(connection):
        return _standing(channel, queue)


def _standing(channel: Any, queue: str) -> tuple[int, int]:
    answer = channel.queue_declare(queue, passive=True)
    return answer.message_count, answer.consumer_count


@contextmanager
def _declaring(connection: kombu.Connection) -> Iterator[None]:
    with translated_errors(connection):
        try:
            yield
        except amqp.exceptions.PreconditionFailed as error:
            raise TopologyConflict(
                f"{place(connection)}: {error.reply_text}; "
                "use another name, or delete what stands there after emptying it"
            ) from error


def _declare(
    connection: kombu.Connection, channel: Any, queue: str, arguments: dict[str, Any]
) -> None:
    # Classic arguments mean nothing to the Redis transport.
    arguments = {"x-queue-type": "quorum", **arguments} if is_amqp(connection) else {}
    channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
