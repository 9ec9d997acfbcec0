"""Hybrid: closing ends what it handed out, and what comes after is told so."""

from __future__ import annotations

import multiprocessing
import time

import attrs
import pytest

from telegram_hybrid import Hybrid
from telegram_hybrid.cache import wake as waking
from telegram_hybrid.errors import Closed
from telegram_hybrid.hybrid import connect
from telegram_hybrid.schema.redis import scripts
from telegram_hybrid.testing import make_message

pytestmark = pytest.mark.integration


def test_closing_stops_the_relays_and_consumers_it_handed_out(hybrid: Hybrid) -> None:
    # Broken on purpose: without the stops the relay ended by a TypeError of redis-py, whose socket
    # was closed under it, and the consumer went on.
    other = connect(hybrid.settings)
    consumer = other.consume(lambda event, tx: None, queue=f"{hybrid.settings.exchange}.closing")
    relay = other.relay()
    consumer.start()
    relay.start()
    time.sleep(0.3)
    other.close()
    assert not consumer.running
    assert not relay.running
    assert consumer.failure is None
    assert relay.failure is None


def test_what_is_used_after_closing_says_so(hybrid: Hybrid) -> None:
    # Broken on purpose: without the listener the engine opened new connections in silence. Seen to
    # fail while that of maintenance was left open.
    other = connect(hybrid.settings)
    other.messages.save(make_message())
    other.close()
    other.close()
    with pytest.raises(Closed, match="connect again"):
        other.messages.save(make_message())
    with pytest.raises(Closed, match="connect again"):
        other.statistics.refresh()


def test_a_handler_may_close_the_hybrid(hybrid: Hybrid) -> None:
    # Broken on purpose: a thread that joins itself raised RuntimeError, and the event was buried.
    other = connect(hybrid.settings)
    consumer = other.consume(
        lambda event, tx: other.close(), queue=f"{hybrid.settings.exchange}.closer"
    )
    consumer.declare()
    hybrid.messages.save(make_message())
    relay = hybrid.relay()
    while not relay.step():
        continue
    consumer.start()
    deadline = time.monotonic() + 10
    while consumer.running and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not consumer.running
    assert consumer.failure is None
    assert consumer.counters.consumed == 1


def test_a_forked_process_and_its_parent_do_not_share_a_connection(hybrid: Hybrid) -> None:
    # Broken on purpose: without the look at the process id each takes answers of the other.
    def save(first: int) -> None:
        for number in range(first, first + 30):
            hybrid.messages.save(make_message(message_id=number))

    save(0)
    child = multiprocessing.get_context("fork").Process(target=save, args=(100,))
    child.start()
    save(200)
    child.join()
    assert child.exitcode == 0
    channel_id = make_message().channel_id
    assert len(hybrid.messages.seen(channel_id, range(300))) == 90


def test_a_forked_process_has_all_of_its_pool(hybrid: Hybrid) -> None:
    # Seen to fail while what the parent had in use counted in the child: it waited 30 s for a free
    # connection, each time; and, with the parent's lock, for ever for a partition.
    with (
        connect(attrs.evolve(hybrid.settings, pool_size=1)) as one,
        one.engine.connect(),
        one.engine.connect(),
        one._partitions._making,
    ):
        child = multiprocessing.get_context("fork").Process(
            target=one.messages.save, args=(make_message(message_id=1),)
        )
        child.start()
        child.join(20)
        child.kill()
        child.join()
    assert child.exitcode == 0
    assert hybrid.messages.seen(make_message().channel_id, [1]) == {1}


def test_relays_are_woken_when_the_writer_has_invalidated(
    hybrid: Hybrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay that comes first drops the window that the writer would patch.

    Broken on purpose: the other way round, by the writer or by the thread, 40 of 600 saves cost
    their channel its window; without asking the thread, relays are not told of the second save.
    """
    monkeypatch.setattr(waking, "INTERVAL", 0.1)  # too soon for the second to tell by itself
    client, wake = hybrid._redis, hybrid.cache.keys.wake
    assert client is not None
    client.script_load(scripts.INVALIDATE.text)
    names = {scripts.INVALIDATE.sha: "invalidated", wake: "woken"}
    said: list[str] = []
    with client.monitor() as monitor:
        for number in (1, 2):
            hybrid.messages.save(make_message(message_id=number))
        for each in monitor.listen():
            said += [names[word] for word in each["command"].split()[1:2] if word in names]
            if len(said) == 4:
                break
    assert said == ["invalidated", "woken"] * 2
