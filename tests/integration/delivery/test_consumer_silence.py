"""A broker that keeps events to itself gets a new connection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from stand import Handler, Stand, publish, until

from telegram_hybrid.delivery import acks, consumer, silence

pytestmark = pytest.mark.integration


def test_acknowledgements_that_are_lost_hold_events_up_only_for_a_while(
    rabbit_at: Stand, monkeypatch: pytest.MonkeyPatch
):
    """RabbitMQ takes the consumer for busy with five events that it has dealt with.

    Broken on purpose: without `_doubt`, the other seven never came.
    """
    monkeypatch.setattr(silence, "SECONDS", 0.5)
    lost: list[acks.Delivery] = []

    def losing(done: Sequence[acks.Delivery], in_hand: Iterable[acks.Delivery]) -> None:
        if len(lost) < 5:
            lost.extend(done)
        else:
            acks.acknowledge(done, in_hand)

    monkeypatch.setattr(consumer, "acknowledge", losing)
    handler = Handler(rabbit_at)
    ids = publish(rabbit_at, 12)
    consuming = rabbit_at.consumer(handler, prefetch=5)
    consuming.start()
    until(lambda: consuming.counters.consumed == 12)
    assert consuming.stop()
    assert handler.effects() == ids
    assert consuming.counters.duplicates == 5
    assert consuming.counters.failures == 1
    assert rabbit_at.taken() == []


def test_a_consumer_of_an_empty_queue_keeps_its_connection(
    rabbit_at: Stand, monkeypatch: pytest.MonkeyPatch
):
    # Broken on purpose: taking an empty queue for one that holds events back.
    monkeypatch.setattr(silence, "SECONDS", 0.05)
    opened: list[object] = []

    def broker() -> object:
        opened.append(connection := rabbit_at.broker())
        return connection

    handler = Handler(rabbit_at)
    consuming = rabbit_at.consumer(handler, broker=broker)
    asked: list[int] = []
    stuck = silence.Silence.stuck

    def counted(self: silence.Silence, ready: int, consumers: int, now: float) -> bool:
        asked.append(ready)
        return stuck(self, ready, consumers, now)

    monkeypatch.setattr(silence.Silence, "stuck", counted)
    consuming.start()
    until(lambda: len(asked) > 5)
    publish(rabbit_at, 3)
    until(lambda: consuming.counters.consumed == 3)
    assert consuming.stop()
    assert consuming.counters.failures == 0
    assert len(opened) == 1
