"""The broker's health: that it lets us in, and how deep the queues of this library are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter

import kombu

from telegram_hybrid.connect import broker
from telegram_hybrid.delivery.topology import depths
from telegram_hybrid.errors import HybridError
from telegram_hybrid.health.redis import product
from telegram_hybrid.health.values import Queue, ServiceHealth, State
from telegram_hybrid.schema.broker import Topology
from telegram_hybrid.settings import Settings


def ask_broker(
    settings: Settings, seconds: float, queues: Callable[[], Iterable[str]]
) -> ServiceHealth:
    """Ask the broker; `seconds` is for connecting, `queues` names whose depths to ask."""
    url = settings.broker_url
    if url is None:
        return ServiceHealth(name="broker", state=State.NOT_CONFIGURED)
    started = perf_counter()
    try:
        connection = broker.open_broker(url, deadline=seconds)
        try:
            with broker.translated_errors(connection):
                version = _version(connection)
                took = perf_counter() - started
            found = depths(connection, Topology(settings.exchange), queues())
        finally:
            broker.close_quietly(connection)
    except HybridError as error:
        return ServiceHealth(name="broker", state=State.DOWN, why=str(error))
    return ServiceHealth(
        name="broker",
        state=State.OK,
        reachable=True,
        seconds=round(took, 6),
        address=broker.place(connection).removeprefix("broker at "),
        version=version,
        queues=tuple(
            Queue(name=name, ready=ready, consumers=consumers)
            for name, (ready, consumers) in found.items()
        ),
    )


def _version(connection: kombu.Connection) -> str:
    if broker.is_amqp(connection):
        facts = connection.connection.server_properties
        return f"{facts.get('product', 'AMQP')} {facts.get('version', '?')}"
    return product(connection.default_channel.client.info("server"))
