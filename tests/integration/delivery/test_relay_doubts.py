"""The relay on a RabbitMQ that does not answer, or that asks to be sent nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit, urlunsplit

import attrs
import pytest
from servers.pausable import Pausable
from servers.rabbitmq import RabbitMQ
from stand import Stand, publish, sealed, until

from telegram_hybrid.connect.broker import open_broker
from telegram_hybrid.delivery.publisher import open_publisher
from telegram_hybrid.delivery.relay import Relay
from telegram_hybrid.errors import BrokerError
from telegram_hybrid.model import Event
from telegram_hybrid.schema.broker import Envelope

pytestmark = pytest.mark.integration

CHANNELS = (-1001, -1002, -1003)


@pytest.fixture
def line(rabbit_at: Stand) -> Iterator[Pausable]:
    """A way to RabbitMQ on which its answers can be held back."""
    proxy = Pausable(urlsplit(rabbit_at.settings.broker_url).port)
    yield proxy
    proxy.close()


def through(line: Pausable, at: Stand) -> Stand:
    """The stand, on that way."""
    parts = urlsplit(at.settings.broker_url)
    login, _, _ = parts.netloc.rpartition("@")
    url = urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{line.port}"))
    return attrs.evolve(at, settings=attrs.evolve(at.settings, broker_url=url))


def in_order(events: Sequence[Event]) -> None:
    """Fail unless the first of each event came in the order of its channel."""
    for channel in {event.channel_id for event in events}:
        numbers = [event.sequence for event in events if event.channel_id == channel]
        first = list(dict.fromkeys(numbers))
        assert first == sorted(first)


@pytest.mark.parametrize("strict", [True, False])
def test_an_event_whose_confirm_never_comes_is_published_again_on_another_channel(
    rabbit_at: Stand, line: Pausable, strict: bool
):
    """The old channel's answer comes late, when nobody may take it for that of another event.

    Broken on purpose: the publisher was kept after the timeout (no `_drop_publisher`).
    """
    rabbit_at.consumer(lambda event, tx: None).declare()
    relay = through(line, rabbit_at).relay(strict=strict)
    rabbit_at.feed(3, CHANNELS)
    relay.step()
    mute = relay._publisher
    mute._timeout = 0.5  # of this one alone: a busy RabbitMQ takes its time
    line.hold()
    rabbit_at.feed(30, CHANNELS)
    with pytest.raises(BrokerError, match=r"did not confirm an event for 0\.5 s"):
        relay.step()
    assert relay._publisher is None
    assert len(rabbit_at.outbox()) == 30
    line.release()
    while relay.step():
        pass
    assert relay._publisher is not mute
    assert rabbit_at.outbox() == []
    assert relay.counters.published == 33
    events = rabbit_at.taken()
    relay.close()
    assert len({event.sequence for event in events}) == 33
    assert len(events) > 33, "the broker had taken what it could not confirm"
    in_order(events)


def test_a_relay_pauses_while_the_broker_is_short_of_memory_and_goes_on_after_that(
    rabbit_at: Stand, rabbitmq: RabbitMQ
):
    """Nothing is lost, nothing is sent twice: it stays on its connection all the time.

    The pause lasts for longer than two heartbeats, after which a connection that nobody reads
    counts as dead, and than the time for a confirm. Broken on purpose: not reading while blocked
    (missed heartbeats), counting the pause as time for the confirm (`blocked` left out of
    `overdue`), and publishing on (`held_back` left out).
    """
    opened = []

    def broker():
        opened.append(open_broker(f"{rabbit_at.settings.broker_url}?heartbeat=2"))
        return opened[-1]

    rabbit_at.consumer(lambda event, tx: None).declare()
    relay = Relay(
        rabbit_at.engine,
        rabbit_at.schema,
        broker,
        topology=rabbit_at.topology,
        confirm_timeout=3.0,
    )
    relay.start()
    try:
        rabbit_at.feed(3, CHANNELS)
        until(lambda: rabbit_at.outbox() == [])
        rabbitmq.control("set_vm_memory_high_watermark", "0")
        try:
            rabbit_at.feed(3, CHANNELS)  # RabbitMQ says so to those who publish
            until(lambda: relay._publisher is not None and relay._publisher.blocked)
            began = time.monotonic()
            rabbit_at.feed(30, range(-1030, -1010))
            until(lambda: relay.gauges().waiting == 30)
            while time.monotonic() < began + 6.0:
                assert relay._publisher.blocked
                assert relay.gauges().waiting == 30
                time.sleep(0.1)
            assert len(rabbit_at.outbox()) == 33
        finally:
            rabbitmq.control("set_vm_memory_high_watermark", "0.4")
        until(lambda: rabbit_at.outbox() == [])
    finally:
        relay.stop()
    assert relay.counters.failures == 0
    assert len(opened) == 1
    events = rabbit_at.taken()
    assert len(events) == len({event.sequence for event in events}) == 36
    in_order(events)


def test_nothing_is_published_after_the_end_of_the_lease(rabbit_at: Stand):
    # Broken on purpose: without the look at the clock both arrived, and with a look at it before
    # the first event alone, too.
    publish(rabbit_at, 2)
    envelopes = [sealed(event) for event in rabbit_at.taken()]
    publisher = open_publisher(rabbit_at.broker(), rabbit_at.topology)

    class Slow(list[Envelope]):
        """The relay falls asleep over the first event."""

        def __iter__(self) -> Iterator[Envelope]:
            for envelope in super().__iter__():
                yield envelope
                time.sleep(0.2)

    with pytest.raises(BrokerError, match="lease ended"):
        publisher.send(Slow(envelopes), until=time.monotonic() + 0.1)
    publisher.close()
    assert rabbit_at.taken() == []


def test_a_write_that_the_broker_does_not_read_ends_with_the_lease(
    rabbit_at: Stand, rabbitmq: RabbitMQ
):
    # Broken on purpose: with `confirm_timeout` alone it went on for 10 seconds.
    publish(rabbit_at, 1)
    (event,) = rabbit_at.taken()
    large = attrs.evolve(sealed(event), body=b"x" * 1_000_000)
    publisher = open_publisher(rabbit_at.broker(), rabbit_at.topology, confirm_timeout=10.0)
    # Where there is this option, Linux ends such a write, too, some time after py-amqp's second.
    wire = publisher._connection.connection.sock
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
    rabbitmq.pause()
    try:
        began = time.monotonic()
        with pytest.raises(BrokerError, match="timed out"):
            publisher.send([large] * 32, until=began + 2.0)
        assert time.monotonic() - began < 5.0
    finally:
        rabbitmq.resume()
        publisher.close()
