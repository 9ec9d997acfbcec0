"""Shards and their floors: who reads what, and from where on (P3)."""

from __future__ import annotations

from datetime import UTC, datetime
from threading import Event
from typing import Any

import attrs
import pytest
from sqlalchemy.event import listens_for
from stand import Stand, bound, drained, until

from telegram_hybrid.connect.postgres import open_engine, transaction
from telegram_hybrid.delivery import holding
from telegram_hybrid.delivery import relay as relay_module
from telegram_hybrid.delivery.backoff import Backoff
from telegram_hybrid.delivery.relay import Relay
from telegram_hybrid.errors import BrokerUnavailable, DatabaseUnavailable
from telegram_hybrid.model import EventType
from telegram_hybrid.outbox import claims, leases, rows
from telegram_hybrid.outbox.locks import lock_channels
from telegram_hybrid.schema.postgres.tables import SHARDS
from telegram_hybrid.testing import make_message

pytestmark = pytest.mark.integration


def test_an_id_that_was_drawn_early_and_commits_late_is_published(at: Stand):
    """The relay's floor must stay below it, however much was published above meanwhile.

    Broken on purpose: a floor that follows what was read (`Floor.deleted` setting it at once)
    skipped the late event until the next look at everything.
    """
    bound(at)
    relay = at.relay()
    shard, other = -1001, -1001 - SHARDS  # two channels of one shard
    with at.engine.connect() as connection, connection.begin():
        lock_channels(connection, at.schema, [shard])
        late = [(EventType.RECEIVED, make_message(channel_id=shard))]
        rows.append(connection, at.schema, late)
        for _ in range(4):
            at.feed(5, [other])
            drained(relay)
    at.feed(1, [shard])
    drained(relay)
    events = [event for event in at.taken() if event.channel_id == shard]
    assert len(events) == 2
    assert events[0].sequence < events[1].sequence
    assert at.outbox() == []
    at.feed(2, [other])
    drained(relay)
    at.feed(2, [other])
    drained(relay)
    assert relay._holding.shards._floors[shard % SHARDS].floor > events[1].sequence


def test_an_event_whose_time_has_come_is_not_passed_while_a_later_one_of_its_channel_waits(
    at: Stand,
):
    """Without strict order both were under way, and the broker refused them one by one.

    Broken on purpose: with the lowest event that waits as the bound, the floor passed the first,
    which came behind the third, after the next look at everything.
    """
    bound(at)
    channel, other = -1001, -1001 - SHARDS  # of one shard
    at.feed(3, [channel])
    first, second, third = at.outbox()
    at.execute("UPDATE {s}.outbox SET not_before = now() WHERE id = :id", id=first)
    later = "UPDATE {s}.outbox SET not_before = now() + interval '1 hour' WHERE id = :id"
    at.execute(later, id=second)
    relay = at.relay(strict=False)
    for _ in range(4):
        at.feed(5, [other])
        drained(relay)
    at.taken()
    at.execute("UPDATE {s}.outbox SET not_before = now() WHERE id = :id", id=second)
    drained(relay)
    assert [event.sequence for event in at.taken()] == [first, second, third]
    relay.close()


def test_the_shards_of_a_dead_relay_are_taken_as_soon_as_its_lease_ends(
    redis_at: Stand, monkeypatch: pytest.MonkeyPatch
):
    # Broken on purpose: without the look at `next_end` the next renewal came a minute later.
    monkeypatch.setattr(holding, "RENEW", 60.0)
    with transaction(redis_at.engine) as connection:
        leases.acquire(connection, redis_at.schema, leases.Lease("dead"), seconds=0.2)
    relay = redis_at.relay(owner="alive", lease_seconds=600.0)
    relay.start()
    until(lambda: held_by(redis_at, "alive") == SHARDS)
    relay.stop()


def held_by(at: Stand, owner: str) -> int:
    return at.value("SELECT count(*) FROM {s}.relay_shards WHERE owner = :o", o=owner)


@pytest.mark.parametrize("behind", ["lease.floor", "later.delay"], ids=["acquire", "postpone"])
def test_a_relay_that_stops_behind_a_statement_keeps_its_shards_only_until_its_lease_ends(
    redis_at: Stand, behind: str
):
    """Its process sleeps, or its host is gone, and its connection stays.

    Broken on purpose: in a transaction, the rows stayed locked, and no other relay got a shard.
    """
    at, stopped, go = redis_at, Event(), Event()
    engine = open_engine(at.settings)

    @listens_for(engine, "after_cursor_execute")
    def stop(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if behind in statement:
            stopped.set()
            go.wait(60.0)

    at.feed(1)  # and no queue is bound for it
    sleeper = Relay(
        engine, at.schema, at.broker, topology=at.topology, owner="asleep", lease_seconds=1.0
    )
    awake = at.relay(owner="awake")
    sleeper.start()
    try:
        assert stopped.wait(20.0)
        awake.start()
        until(lambda: held_by(at, "awake") == SHARDS)
    finally:
        go.set()
        sleeper.stop()
        awake.stop()
        engine.dispose()


def test_a_relay_that_is_cut_off_from_the_broker_leaves_its_shards_to_others_and_comes_back(
    redis_at: Stand, monkeypatch: pytest.MonkeyPatch
):
    """Broken on purpose: without `_step_aside` it kept its half, for whose channels nobody
    published anything."""
    # As short beside the lease as it is beside the usual one.
    monkeypatch.setattr(relay_module, "RECONNECT", Backoff(first=0.1, most=0.2))
    at, down = redis_at, Event()
    bound(at)

    def broker() -> Any:
        if down.is_set():
            raise BrokerUnavailable("no route to host")
        return at.broker()

    cut_off = Relay(
        at.engine, at.schema, broker, topology=at.topology, owner="cut off", lease_seconds=1.0
    )
    other = at.relay(owner="other", lease_seconds=1.0)
    down.set()
    cut_off.start()
    other.start()
    try:
        until(lambda: held_by(at, "cut off") == SHARDS // 2)
        at.feed(SHARDS, range(-1000 - SHARDS, -1000))
        until(lambda: at.outbox() == [])
        assert held_by(at, "other") == SHARDS
        down.clear()
        until(lambda: held_by(at, "cut off") == SHARDS // 2)
        at.feed(SHARDS, range(-1000 - SHARDS, -1000))
        until(lambda: at.outbox() == [])
        assert cut_off.counters.published > 0
    finally:
        cut_off.stop()
        other.stop()


def floors(at: Stand) -> dict[int, int]:
    return {row.shard: row.floor for row in at.rows("SELECT * FROM {s}.relay_shards")}


def renewed(relay: Relay) -> None:
    relay._holding.renew_at = 0.0
    relay.step()


def test_a_relay_goes_on_from_the_floor_of_the_one_before_it(at: Stand):
    """And does not walk over what that one published, however dead it was.

    Broken on purpose: `begin` with floors of 0 began anew.
    """
    bound(at)
    relay = at.relay()
    for _ in range(4):
        at.feed(5)
        renewed(relay)
    kept = floors(at)[-1001 % SHARDS]
    assert kept >= 10
    relay.close()
    other = at.relay()
    other.step()
    assert other._holding.shards._floors[-1001 % SHARDS].floor == kept
    at.feed(5)
    drained(other)
    assert at.outbox() == []
    other.close()


def test_the_kept_floor_stays_below_what_a_killed_relay_had_in_memory(at: Stand):
    """Broken on purpose: without `lowest` the floor passed events that were only read, and the
    next relay published others of their channel before them."""
    bound(at)
    shard = -1001 % SHARDS
    relay = at.relay(owner="killed")
    at.feed(5)
    relay.step()
    at.feed(5)
    waiting = at.outbox()
    relay._holding.shards.expect()
    assert relay._read() == 5  # and it publishes nothing
    relay._holding.shards.deleted(1)
    at.feed(1, [-1001 - SHARDS])
    relay._holding.shards.expect()
    assert relay._read() == 1
    assert relay._holding.shards._floors[shard].floor >= waiting[-1]
    relay._holding.renew_at = 0.0
    relay._holding.renew()
    assert 0 < floors(at)[shard] < waiting[0]
    at.taken()
    successor = at.relay(owner="killed")
    drained(successor)
    assert [e.sequence for e in at.taken() if e.channel_id == -1001] == waiting
    successor.close()
    relay.close()


def test_events_whose_numbers_began_anew_are_found_by_the_look_at_everything(at: Stand):
    # Broken on purpose: with the old floor kept, those after the first waited for another look.
    bound(at)
    relay = at.relay()
    for _ in range(4):
        at.feed(5)
        renewed(relay)
    at.execute("ALTER TABLE {s}.outbox ALTER COLUMN id RESTART WITH 1")
    at.feed(3)
    relay._full_look_at = 0.0
    drained(relay)
    assert at.outbox() == []
    at.feed(3)
    drained(relay)
    assert at.outbox() == []
    relay.close()


def promoted(at: Stand, relay: Relay) -> None:
    """Have the database be as a replica that was promoted, and lacks all these commits."""
    at.execute("DELETE FROM {s}.outbox")
    at.execute("ALTER TABLE {s}.outbox ALTER COLUMN id RESTART WITH 1")
    before = datetime(2026, 1, 1, tzinfo=UTC)
    relay._holding.lease = attrs.evolve(relay._holding.lease, server=before)


def works(at: Stand, relay: Relay) -> None:
    relay.start()
    try:
        until(lambda: at.outbox() == [])
    finally:
        relay.stop()


def test_a_promoted_replicas_events_are_not_deleted_for_those_whose_numbers_they_have(
    at: Stand, monkeypatch: pytest.MonkeyPatch
):
    # Broken on purpose: without `server` in the fence of `delete`, none was published.
    bound(at)
    relay = at.relay()
    at.feed(5)

    def fail(*_: object) -> None:
        raise DatabaseUnavailable("the server is gone")

    with monkeypatch.context() as patched:
        patched.setattr(claims, "delete", fail)
        with pytest.raises(DatabaseUnavailable):
            relay.step()
    assert len(at.taken()) == 5
    promoted(at, relay)
    at.feed(5)
    works(at, relay)
    assert [event.sequence for event in at.taken()] == [1, 2, 3, 4, 5]


def test_a_promoted_replicas_events_are_not_passed(at: Stand):
    # Broken on purpose: without the look at `server` in `acquire`, they waited for a minute.
    bound(at)
    relay = at.relay()
    for _ in range(4):
        at.feed(5)
        renewed(relay)
    assert floors(at)[-1001 % SHARDS] >= 5
    at.execute("UPDATE {s}.relay_shards SET floor = 0")  # as it was when the replica heard of it
    promoted(at, relay)
    at.feed(3)
    works(at, relay)
    relay.close()


@pytest.mark.parametrize("freeze", [False, True])
def test_a_promoted_replicas_events_are_not_taken_for_refused_ones(redis_at: Stand, freeze: bool):
    # Broken on purpose: without `server` in _FENCE.
    redis_at.feed(1)
    with transaction(redis_at.engine) as connection:
        held = leases.acquire(connection, redis_at.schema, leases.Lease("a"), seconds=60).lease
        asks = [claims.Ask(shard, 0, 10) for shard in held.shards]
        (row,) = claims.pending(connection, redis_at.schema, asks).rows
        other = attrs.evolve(held, server=datetime(2026, 1, 1, tzinfo=UTC))
        burial = claims.Burial(row, "no route", freeze=freeze)
        assert claims.bury(connection, redis_at.schema, other, [burial]) == 0
        late = claims.Postponement(row, "no route", 1.0)
        assert claims.postpone(connection, redis_at.schema, other, [late]) == 0
        assert claims.bury(connection, redis_at.schema, held, [burial]) == 1


def test_two_relays_share_no_shard_and_together_publish_everything_once(at: Stand):
    bound(at)
    at.feed(48, range(-1048, -1000))
    first, second = at.relay(), at.relay()
    with at.engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE {at.schema}.relay_shards SET owner = 'other', "
            "expires_at = now() + interval '1 hour' WHERE shard >= 8"
        )
    drained(first)
    assert first.counters.published == 24
    with at.engine.begin() as connection:
        leases.release(
            connection,
            at.schema,
            leases.Lease("other", dict.fromkeys(range(8, 16), 0)),
        )
    drained(second)
    assert second.counters.published == 24
    assert len(at.taken()) == 48
