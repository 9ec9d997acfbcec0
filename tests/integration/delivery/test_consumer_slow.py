"""A consumer that is busy for longer than RabbitMQ waits for a sign of life."""

from __future__ import annotations

import time
from typing import Any

import pytest
from stand import Handler, Stand, publish, until

from telegram_hybrid.connect.broker import open_broker
from telegram_hybrid.delivery import topology
from telegram_hybrid.model import Event

pytestmark = pytest.mark.integration


def test_a_handler_that_takes_long_costs_no_connection_and_no_event_behind_it(
    rabbit_at: Stand, monkeypatch: pytest.MonkeyPatch
):
    """A lost connection hands out again all that was prefetched, and counts for each of it.

    Broken on purpose: without the pulse the broker ended the connection, and gave up the second
    event, which nobody had ever handled.
    """
    monkeypatch.setattr(topology, "DELIVERY_LIMIT", 0)
    handler = Handler(rabbit_at)

    def slow(event: Event, tx: Any) -> None:
        handler(event, tx)
        if len(handler.calls) == 1:
            time.sleep(6.5)

    opened = []

    def broker() -> Any:
        opened.append(open_broker(f"{rabbit_at.settings.broker_url}?heartbeat=2"))
        return opened[-1]

    ids = publish(rabbit_at, 2)
    consumer = rabbit_at.consumer(slow, broker=broker)
    consumer.start()
    try:
        until(lambda: consumer.counters.consumed == 2)
    finally:
        consumer.stop()
    assert handler.effects() == ids
    assert (len(opened), consumer.counters.failures) == (1, 0)
    assert rabbit_at.taken(rabbit_at.topology.dead_letter_queue) == []
