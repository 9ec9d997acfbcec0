"""Housekeeping: the inbox's window, and consumers that go on beside it."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import attrs
import pytest
from stand import Handler, Stand, publish, until

from telegram_hybrid import connect
from telegram_hybrid.connect import postgres
from telegram_hybrid.delivery.maintenance import DAY, Forgotten, maintain
from telegram_hybrid.errors import InvalidInput

pytestmark = pytest.mark.integration


def housekeeping(at: Stand, **options: Any) -> Forgotten:
    options.setdefault("inbox_window", at.settings.inbox_window)
    return maintain(partial(postgres.transaction, at.engine), at.schema, **options)


def remember(at: Stand, number: int, days: float, queue: str = "old", handled: float = -1) -> None:
    """Inbox rows of events that are `days` old and were handled then, or `handled` days ago."""
    at.execute(
        "INSERT INTO {s}.inbox SELECT :queue, (lpad(to_hex((extract(epoch FROM now()"
        " - make_interval(secs => :age)) * 1000)::bigint), 12, '0')"
        " || '7000' || '8' || lpad(to_hex(n), 15, '0'))::uuid, -1001, n,"
        " now() - make_interval(secs => :handled) FROM generate_series(1, :number) AS n",
        queue=queue,
        number=number,
        age=days * DAY,
        handled=(days if handled < 0 else handled) * DAY,
    )


def inbox(at: Stand, queue: str = "old") -> int:
    return int(at.value("SELECT count(*) FROM {s}.inbox WHERE queue = :q", q=queue))


def test_what_is_older_than_the_window_goes_in_batches_and_nothing_else(redis_at: Stand):
    at = redis_at
    remember(at, 2500, days=8)
    remember(at, 30, days=6.9)
    remember(at, 40, days=9, queue="other")
    remember(at, 50, days=9, queue="late", handled=2)  # the consumer was stopped for a week
    assert housekeeping(at, pause=0.0).inbox == 2540
    assert (inbox(at), inbox(at, "other"), inbox(at, "late")) == (30, 0, 50)
    assert housekeeping(at).inbox == 0
    assert housekeeping(at, inbox_window=6 * DAY).inbox == 30


def test_an_event_that_may_come_again_is_remembered_beyond_the_window(redis_at: Stand):
    """Broken on purpose: without each of the conditions, the row of its case went."""
    at = redis_at
    remember(at, 3, days=8)
    letters = (
        "INSERT INTO {s}.dead_letters (queue, event_id, type, channel_id, message_id, payload,"
        " sequence, attempts, reason, settled_at, outcome)"
        " SELECT 'x', event_id, 't', -1001, 1, '{{}}', 1, 1, 'r',"
    )
    at.execute(letters + " NULL, NULL FROM {s}.inbox WHERE message_id = 1")
    at.execute(
        letters + " now() - interval '6 days', 'replayed' FROM {s}.inbox WHERE message_id = 2"
    )
    assert housekeeping(at).inbox == 1
    assert inbox(at) == 2
    remember(at, 10, days=20, queue="waits")
    at.feed(1)
    at.execute("UPDATE {s}.outbox SET occurred_at = now() - interval '21 days'")
    assert housekeeping(at).inbox == 0
    at.execute("DELETE FROM {s}.outbox")
    assert housekeeping(at).inbox == 10


def test_settled_letters_go_after_their_window_and_open_ones_never(redis_at: Stand):
    at = redis_at
    for settled in ("NULL, NULL", "now() - interval '91 days', 'discarded'", "now(), 'replayed'"):
        at.execute(
            "INSERT INTO {s}.dead_letters (event_id, type, channel_id, message_id, payload,"
            " sequence, attempts, reason, failed_at, settled_at, outcome) VALUES"
            " (gen_random_uuid(), 't', -1001, 1, '{{}}', 1, 1, 'r', now() - interval '1 year',"
            f" {settled})"
        )
    assert housekeeping(at).dead_letters == 1
    assert housekeeping(at, letter_window=0.0).dead_letters == 1
    assert at.value("SELECT count(*) FROM {s}.dead_letters WHERE settled_at IS NULL") == 1


@pytest.mark.parametrize("window", [0.0, -1.0, 3599.0, float("nan")])
def test_a_window_shorter_than_a_redelivery_is_refused(redis_at: Stand, window: float):
    with pytest.raises(InvalidInput, match="inbox_window"):
        housekeeping(redis_at, inbox_window=window)


@pytest.mark.parametrize("name", ["letter_window", "change_window"])
@pytest.mark.parametrize("window", [-1.0, float("nan")])
def test_a_window_that_is_no_time_is_refused(redis_at: Stand, name: str, window: float):
    with pytest.raises(InvalidInput, match=name):
        housekeeping(redis_at, **{name: window})


def test_the_window_is_the_one_of_the_settings_unless_told(redis_at: Stand):
    # Broken on purpose: with the default of the settings in its place all stayed.
    remember(redis_at, 3, days=2)
    with connect(attrs.evolve(redis_at.settings, inbox_window=DAY)) as hybrid:
        assert hybrid.maintain(inbox_window=3 * DAY).inbox == 0
        assert hybrid.maintain().inbox == 3


def test_a_consumer_works_while_housekeeping_runs(redis_at: Stand):
    """Nothing that it waits for is locked: not even the rows of its own queue that do not go."""
    at = redis_at
    remember(at, 5000, days=8, queue=at.queue)
    handler = Handler(at)
    ids = publish(at, 200)
    consumer = at.consumer(handler)
    going = threading.Thread(target=partial(housekeeping, at, batch=50, pause=0.02))
    going.start()
    consumer.start()
    until(lambda: consumer.counters.consumed >= 100)
    assert going.is_alive()
    until(lambda: consumer.counters.consumed == 200, 60)
    assert consumer.stop()
    going.join(60)
    assert handler.effects() == ids
    assert inbox(at, at.queue) == 200


def test_an_event_older_than_the_window_is_handled_once_if_it_never_was(redis_at: Stand):
    """A consumer that was stopped for a month finds old events, and then a duplicate of one."""
    at = redis_at
    handler = Handler(at)
    at.consumer(handler).declare()
    at.feed(1)
    at.execute(
        "UPDATE {s}.outbox SET occurred_at = now() - interval '30 days',"
        " event_id = '01700000-0000-7000-8000-000000000001'"
    )
    at.execute("CREATE TABLE {s}.copy AS SELECT * FROM {s}.outbox")
    for _ in range(2):  # the relay dies after publishing, and another one repeats it
        relay = at.relay(owner="publish")
        while relay.step():
            pass
        relay.close()
        at.execute("INSERT INTO {s}.outbox SELECT * FROM {s}.copy ON CONFLICT DO NOTHING")
    assert housekeeping(at) == Forgotten(0, 0)
    consumer = at.consumer(handler)
    consumer.start()
    until(lambda: consumer.counters.consumed + consumer.counters.duplicates == 2)
    assert consumer.stop()
    assert consumer.counters.duplicates == 1
    assert housekeeping(at).inbox == 0  # handled just now
    assert len(handler.effects()) == 1
