"""Publisher: events to the broker, and its answers, for a pipeline that keeps the order.

After any error a publisher is to be closed, and so is what it was told: a late answer could be
taken for that of another event. What it sent without an answer may be there or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import monotonic
from typing import Any, Protocol

import amqp
import kombu

from telegram_hybrid.connect.broker import (
    close_quietly,
    is_amqp,
    place,
    translated_errors,
)
from telegram_hybrid.delivery.confirms import Confirms, Receipt, Verdict
from telegram_hybrid.delivery.topology import declare_exchanges
from telegram_hybrid.errors import BrokerError
from telegram_hybrid.schema.broker import CONTENT_TYPE, Envelope, Topology

_PERSISTENT = 2
_UNROUTABLE = "no queue is bound for it"
#: Seconds between two looks at the heartbeats.
_BEAT = 1.0


class Publisher(Protocol):
    """One connection to publish on, for one thread."""

    @property
    def blocked(self) -> bool:
        """Whether the broker asked to send nothing for now."""

    def send(self, envelopes: Sequence[Envelope], *, until: float = math.inf) -> None:
        """Send in this order, none of them at or after the monotonic time `until`.

        Raises `BrokerError`, also when that time came.
        """

    def receipts(self) -> list[Receipt]:
        """Return what the broker has answered by now, and keep the connection alive.

        Raises `BrokerError`, also when an answer is overdue.
        """

    def fileno(self) -> int | None:
        """What becomes readable when answers come; None if they are there after `send`."""

    def close(self) -> None:
        """Close the connection; never raises."""


def open_publisher(
    connection: kombu.Connection, topology: Topology, *, confirm_timeout: float = 30.0
) -> Publisher:
    """Declare the exchanges and return a publisher that owns `connection`.

    `confirm_timeout` is how many seconds the broker may take to answer for an event. Raises
    `BrokerError`, with the connection closed.
    """
    try:
        with translated_errors(connection):
            channel = connection.channel()
        declare_exchanges(connection, channel, topology)
        if is_amqp(connection):
            return AmqpPublisher(connection, channel, topology, confirm_timeout)
        return RedisPublisher(connection, channel, topology)
    except BaseException:
        close_quietly(connection)
        raise


class AmqpPublisher:
    """Pipelined publishes on one confirming channel, each with `mandatory`."""

    def __init__(
        self,
        connection: kombu.Connection,
        channel: Any,
        topology: Topology,
        confirm_timeout: float,
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._exchange = topology.exchange
        self._timeout = confirm_timeout
        self._confirms = Confirms()
        self.blocked = False
        #: Nothing was overdue then; a broker that is blocked answers when it is not any more.
        self._calm_at = monotonic()
        self._beat_at = monotonic()
        with translated_errors(connection):
            channel.events["basic_ack"].add(self._confirms.acked)
            channel.events["basic_nack"].add(self._confirms.nacked)
            channel.events["basic_return"].add(self._returned)
            channel.confirm_select()
            wire = connection.connection
            wire.on_blocked = lambda _reason: self._set_blocked(True)
            wire.on_unblocked = lambda: self._set_blocked(False)

    def send(self, envelopes: Sequence[Envelope], *, until: float = math.inf) -> None:
        """Write the events, by one write; it ends with the time, if the broker does not read."""
        now = monotonic()
        with translated_errors(self._connection):
            transport = self._connection.connection.transport
            patience = max(0.001, min(self._timeout, until - now))
            with transport.having_timeout(patience), transport.together():
                for envelope in envelopes:
                    self._confirms.sent(envelope.message_id, now)
                    # What `basic_publish` does, but for its look at the socket before each event.
                    self._channel.send_method(
                        amqp.spec.Basic.Publish,
                        "Bssbb",
                        (0, self._exchange, envelope.routing_key, True, False),
                        _amqp_message(envelope),
                    )
                _check(until)

    def receipts(self) -> list[Receipt]:
        """Read all that has arrived."""
        with translated_errors(self._connection):
            while self._connection.connection.transport.has_news():
                try:
                    self._connection.drain_events(timeout=0)
                except TimeoutError:  # of a frame, not all is here
                    break
            now = monotonic()
            if now - self._beat_at >= _BEAT:
                self._beat_at = now
                self._connection.heartbeat_check()
        oldest = self._confirms.oldest
        overdue = oldest is not None and now - max(oldest, self._calm_at) > self._timeout
        if overdue and not self.blocked:
            raise BrokerError(
                f"{place(self._connection)} did not confirm an event for {self._timeout:g} s"
            )
        return self._confirms.collect(now)

    def fileno(self) -> int:
        """The socket's."""
        number: int = self._connection.connection.sock.fileno()
        return number

    def close(self) -> None:
        """Close the connection."""
        close_quietly(self._connection)

    def _returned(self, error: Exception, _exchange: str, _key: str, message: Any) -> None:
        reason = f"{_UNROUTABLE}: {error}"
        self._confirms.returned(message.properties.get("message_id", ""), reason)

    def _set_blocked(self, blocked: bool) -> None:
        self.blocked = blocked
        self._calm_at = monotonic()


class RedisPublisher:
    """All events in one atomic step: Redis keeps their order, and refuses none alone."""

    blocked = False

    def __init__(self, connection: kombu.Connection, channel: Any, topology: Topology) -> None:
        self._connection = connection
        self._channel = channel
        self._exchange = topology.exchange
        self._receipts: list[Receipt] = []

    def send(self, envelopes: Sequence[Envelope], *, until: float = math.inf) -> None:
        """Publish those for which a queue is bound."""
        began = monotonic()
        messages = [
            (
                envelope.routing_key,
                self._channel.prepare_message(
                    envelope.body.decode(),
                    content_type=CONTENT_TYPE,
                    content_encoding="utf-8",
                    headers=dict(envelope.headers),
                    properties={
                        "message_id": envelope.message_id,
                        "type": envelope.type,
                        "delivery_mode": _PERSISTENT,
                    },
                ),
            )
            for envelope in envelopes
        ]
        _check(until)
        with translated_errors(self._connection):
            routed = self._channel.publish_all(self._exchange, messages)
        seconds = monotonic() - began
        for envelope, there in zip(envelopes, routed, strict=True):
            verdict = Verdict.CONFIRMED if there else Verdict.RETURNED
            reason = "" if there else _UNROUTABLE
            self._receipts.append(Receipt(envelope.message_id, verdict, reason, seconds))

    def receipts(self) -> list[Receipt]:
        """Redis answered when it was sent to."""
        receipts, self._receipts = self._receipts, []
        return receipts

    def fileno(self) -> None:
        """Nothing to wait for."""
        return

    def close(self) -> None:
        """Close the connection."""
        close_quietly(self._connection)


def _check(until: float) -> None:
    if monotonic() >= until:
        raise BrokerError("the lease ended before all was sent; the next one repeats it")


def _amqp_message(envelope: Envelope) -> amqp.Message:
    return amqp.Message(
        envelope.body,
        content_type=CONTENT_TYPE,
        content_encoding="utf-8",
        delivery_mode=_PERSISTENT,
        message_id=envelope.message_id,
        type=envelope.type,
        application_headers=dict(envelope.headers),
    )
