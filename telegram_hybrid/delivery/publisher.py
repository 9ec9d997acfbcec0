"""Publisher: events to the broker, each with a receipt, in order per channel.

A publisher never raises for a broker's failure: it gives a receipt for every event, so that what
was confirmed before the failure is not published again. After any `UNKNOWN` it is broken and must
be closed: a late answer could be taken for that of another event.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
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
from telegram_hybrid.delivery.confirms import CONFIRMED, Confirms, Receipt, Verdict, waves
from telegram_hybrid.delivery.topology import declare_exchanges
from telegram_hybrid.errors import BrokerError
from telegram_hybrid.schema.broker import CONTENT_TYPE, Envelope, Topology

_PERSISTENT = 2
_UNROUTABLE = "no queue is bound for it"


class Publisher(Protocol):
    """One connection to publish on, for one thread."""

    def publish(self, envelopes: Sequence[Envelope]) -> list[Receipt]:
        """Publish in order per routing key; return one receipt for each, in the given order."""

    def pump(self) -> None:
        """Keep the connection alive while there is nothing to publish; raises `BrokerError`."""

    def close(self) -> None:
        """Close the connection; never raises."""


def open_publisher(
    connection: kombu.Connection, topology: Topology, *, confirm_timeout: float = 30.0
) -> Publisher:
    """Declare the exchanges and return a publisher that owns `connection`.

    `confirm_timeout` is how many seconds the broker may take to answer for a wave. Raises
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
    """Waves of one event per routing key, each wave pipelined, confirmed before the next."""

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
        self._blocked = False
        self._beat_at = 0.0
        with translated_errors(connection):
            channel.events["basic_ack"].add(self._confirms.acked)
            channel.events["basic_nack"].add(self._confirms.nacked)
            channel.events["basic_return"].add(self._returned)
            channel.confirm_select()
            wire = connection.connection
            wire.on_blocked = lambda _reason: self._set_blocked(True)
            wire.on_unblocked = lambda: self._set_blocked(False)

    def publish(self, envelopes: Sequence[Envelope]) -> list[Receipt]:
        """Publish wave by wave; a routing key that is refused an event gets no later one."""
        receipts = [Receipt(Verdict.HELD)] * len(envelopes)
        refused: set[str] = set()
        for wave in waves([envelope.routing_key for envelope in envelopes]):
            going = [at for at in wave if envelopes[at].routing_key not in refused]
            answers, broken = self._publish_wave([envelopes[at] for at in going])
            for at in going:
                receipts[at] = answers.get(envelopes[at].message_id, receipts[at])
                if receipts[at].verdict is not Verdict.CONFIRMED:
                    refused.add(envelopes[at].routing_key)
            if broken:
                break
        return receipts

    def _publish_wave(self, wave: Sequence[Envelope]) -> tuple[dict[str, Receipt], bool]:
        """Return receipts by message id, and whether the connection is to be given up."""
        try:
            with translated_errors(self._connection):
                self._await_unblocked()
                for envelope in wave:
                    self._confirms.sent(envelope.message_id)
                    self._channel.basic_publish(
                        _amqp_message(envelope),
                        exchange=self._exchange,
                        routing_key=envelope.routing_key,
                        mandatory=True,
                        timeout=self._timeout,
                    )
                self._drain(lambda: self._confirms.waiting > 0, "confirmed nothing")
        except BrokerError as error:
            return self._confirms.collect(str(error)), True
        return self._confirms.collect(), False

    def _await_unblocked(self) -> None:
        self._drain(lambda: self._blocked, "is blocked: it is short of memory or disk; it took in")

    def _drain(self, unfinished: Any, complaint: str) -> None:
        deadline = monotonic() + self._timeout
        while unfinished():
            left = deadline - monotonic()
            if left <= 0:
                raise BrokerError(f"{place(self._connection)} {complaint} for {self._timeout:g} s")
            try:
                self._connection.drain_events(timeout=min(left, 1.0))
            except TimeoutError:
                self._beat()

    def pump(self) -> None:
        """Read what arrived and send a heartbeat if one is due."""
        with translated_errors(self._connection):
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=0.001)
            self._beat()

    def close(self) -> None:
        """Close the connection."""
        close_quietly(self._connection)

    def _beat(self) -> None:
        if monotonic() - self._beat_at >= 1.0:
            self._beat_at = monotonic()
            self._connection.heartbeat_check()

    def _returned(self, error: Exception, _exchange: str, _key: str, message: Any) -> None:
        reason = f"{_UNROUTABLE}: {error}"
        self._confirms.returned(message.properties.get("message_id", ""), reason)

    def _set_blocked(self, blocked: bool) -> None:
        self._blocked = blocked


class RedisPublisher:
    """All events in one atomic step: Redis keeps their order, and refuses none alone."""

    def __init__(self, connection: kombu.Connection, channel: Any, topology: Topology) -> None:
        self._connection = connection
        self._channel = channel
        self._exchange = topology.exchange

    def publish(self, envelopes: Sequence[Envelope]) -> list[Receipt]:
        """Publish those for which a queue is bound; without an answer, all are unknown."""
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
        try:
            with translated_errors(self._connection):
                routed = self._channel.publish_all(self._exchange, messages)
        except BrokerError as error:
            return [Receipt(Verdict.UNKNOWN, str(error))] * len(envelopes)
        unroutable = Receipt(Verdict.RETURNED, _UNROUTABLE)
        return [CONFIRMED if there else unroutable for there in routed]

    def pump(self) -> None:
        """Nothing to keep alive: every command finds out for itself."""

    def close(self) -> None:
        """Close the connection."""
        close_quietly(self._connection)


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
