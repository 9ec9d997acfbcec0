"""Promise P8 on real servers: a master, a replica and three sentinels, killed and stopped.

The figures that a test measures are printed (`pytest -s`, or after a failure).
"""

from __future__ import annotations

import logging
import threading
import time

import attrs
import pytest
import redis
from redis_load import Load, directory, until
from servers.redis_ha import MASTER_NAME, Node, RedisHA
from servers.stack import NativeStack

from telegram_hybrid import Hybrid
from telegram_hybrid.connect.redis import NoReply, NotConnected, open_redis
from telegram_hybrid.delivery.wake import RedisWake
from telegram_hybrid.hybrid import connect
from telegram_hybrid.testing import make_messages

#: Seconds of silence after which the sentinels take a node for dead (see the fixture `ha`).
DOWN_AFTER = 1.0

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("how", ["kill -9", "SIGSTOP"])
def test_a_lost_master_is_no_error_and_nothing_is_lost_to_it_when_it_returns(
    ha: RedisHA, how: str
) -> None:
    # Broken on purpose: a directory that believes the first node whose ROLE says master loses
    # thousands of writes to the old one; one that ignores `promoted` needed 3.1 s after a SIGSTOP.
    with (
        open_redis(ha.url(), deadline=5.0) as client,
        open_redis(ha.url(), deadline=5.0) as sleeper,
    ):
        load = Load(client)
        sleeper.set("sleeper", "before")
        old = ha.master()
        with load.running():
            time.sleep(1.0)
            if how == "SIGSTOP":
                old.pause()
            else:
                old.kill()
            fault = time.monotonic()
            new = next(each for each in ha.nodes if each is not old)
            promoted = until(new.is_master, 10)
            until(lambda: all(ha.named_by(each) == new.port for each in ha.sentinels), 10)
            time.sleep(0.5)
            back = time.monotonic()
            if how == "SIGSTOP":
                old.resume()
            else:
                old.start()
            # It calls itself a master again, and this one slept through everything.
            sleeper.set("sleeper", "after")
            ha.settle()
            time.sleep(0.5)
        assert ha.master() is new
        longest, lost = load.longest(), load.lost(new, since=fault)
        before = load.lost(new)
        print(
            f"\n{how}: {len(load.calls):,} calls, {len(load.errors)} errors, "
            f"longest {longest:.2f} s;"
            f" replica promoted after {promoted:.2f} s; old master back at {back - fault:.1f} s;"
            f" {len(load.acknowledged):,} writes acknowledged, {len(lost)} lost after the fault,"
            f" {len(before)} acknowledged before it"
        )
        assert load.errors == []
        assert load.wrong == []
        assert lost == []
        assert new.ask("GET", "sleeper") == b"after"
        assert directory(client).view().epoch == 2
        # Callers hear of the promotion at once: 12 to 64 ms later in 12 failovers,
        # 211 once beside other tests. Sentinel's own
        # part is up to 2.45 s after a SIGSTOP: a ping each 1.1 s, then down-after, then a vote. It
        # can take longer on a busy machine, and only then may we.
        assert longest < promoted + 0.5
        if promoted < DOWN_AFTER + 1.5 - 0.1:
            assert longest < DOWN_AFTER + 1.5


def test_a_leader_that_is_the_last_to_switch_does_not_depose_the_new_master(
    own_stack: NativeStack,
) -> None:
    # It waits for a replica that cannot follow, while the others name the new master already.
    # Seen to fail while the majority's name was taken for the deposed: no master for 10 s.
    third = own_stack.add_replica()
    own_stack.add("redis-replica-2/redis.conf", "replica-priority 0")  # never promoted
    ha = own_stack.redis
    ha.start()
    third.ask("CONFIG", "SET", "masterauth", "wrong")
    with open_redis(ha.url(), deadline=6.0) as client:
        load = Load(client)
        with load.running():
            time.sleep(0.5)
            ha.master().kill()
            new = ha.nodes[1]
            promoted = until(new.is_master, 20)
            until(lambda: sum(_calls_master(each) == new.port for each in ha.sentinels) == 2, 5)
            waited = until(
                lambda: all(_calls_master(each) == new.port for each in ha.sentinels), 20
            )
            time.sleep(1.0)
        print(
            f"\npromoted after {promoted:.2f} s, known to the leader {waited:.2f} s after the"
            f" others; longest call {load.longest():.2f} s"
        )
        assert waited > 0.5, "the leader was not the last"
        assert load.errors == []
        assert load.wrong == []
        assert load.longest() < promoted + 0.5
        assert directory(client).view().epoch == 2


def _calls_master(sentinel: Node) -> int:
    """The port of what one sentinel monitors; the leader's, until its failover is over."""
    with sentinel.client(decode_responses=True) as client:
        return int(client.sentinel_master(MASTER_NAME)["port"])


def test_what_is_not_safe_to_repeat_is_sent_once(ha: RedisHA) -> None:
    # Broken on purpose: with INCR among the repeatable commands it is performed twice.
    master = ha.master()
    with open_redis(ha.url(), deadline=5.0) as client:
        client.set("other", "0")
        master.pause()
        threading.Timer(0.6, master.resume).start()
        with pytest.raises(NoReply, match="not safe to repeat"):
            client.incr("counter")
        assert client.set("other", "1")
        assert client.get("counter") == b"1"
        with client.pipeline() as pipeline:
            replies = pipeline.incr("counter").get("other").execute()
        assert replies == [2, b"1"]


def test_what_was_certainly_not_sent_is_repeated_whatever_it_is(ha: RedisHA) -> None:
    with open_redis(ha.url(), deadline=5.0) as client:
        client.set("counter", "0")
        ha.master().kill()
        time.sleep(0.1)
        assert client.incr("counter") == 1  # the connection is gone, and there is no other yet
        with client.pipeline() as pipeline:
            assert pipeline.incr("counter").execute() == [2]


def test_both_redis_gone_is_a_typed_error_within_the_deadline_and_heals(ha: RedisHA) -> None:
    with open_redis(ha.url(), deadline=2.0) as client, open_redis(ha.url(), deadline=None) as hasty:
        client.set("a", "1")
        hasty.ping()
        for each in ha.nodes:
            each.kill()
        began = time.monotonic()
        with pytest.raises(NotConnected, match=r"127\.0\.0\.1"):
            client.get("a")
        spent = time.monotonic() - began
        with pytest.raises(redis.ConnectionError):
            hasty.ping()
        began = time.monotonic()
        for _ in range(100):
            with pytest.raises(NotConnected):
                hasty.ping()
        each_costs = (time.monotonic() - began) / 100
        for each in ha.nodes:
            each.start()
        healed = until(lambda: _answers(client), 20.0)
        print(
            f"\nboth gone: typed error after {spent:.2f} s of 2 s, {each_costs * 1e6:.0f} us each"
            f" without deadline; heals {healed:.2f} s after their return"
        )
        assert spent < 2.0
        assert each_costs < 0.01


def _answers(client: redis.Redis) -> bool:
    try:
        return client.get("a") is None  # the deployed cache keeps nothing over a restart
    except (NoReply, NotConnected):
        return False


def test_a_subscription_moves_with_the_master(ha: RedisHA) -> None:
    # Broken on purpose: without hanging up it stays with the stopped master for ever.
    with open_redis(ha.url(), deadline=None) as client, open_redis(ha.url()) as sender:
        wake = RedisWake(client, "topic")
        wake.wait(2.0)  # the answer to the subscription is news, too
        assert not wake.wait(0.3)
        sender.publish("topic", b"")
        assert wake.wait(2.0)
        old = ha.master()
        old.pause()
        new = next(each for each in ha.nodes if each is not old)
        took = until(new.is_master, 10)
        began = time.monotonic()
        while not wake.wait(0.2):
            assert time.monotonic() - began < 10
            new.ask("PUBLISH", "topic", "")
        print(f"\nsubscribed again {time.monotonic() - began:.2f} s after promotion ({took:.2f} s)")
        wake.close()


def test_the_epoch_rises_with_each_change_of_the_master(ha: RedisHA) -> None:
    with open_redis(ha.url(), deadline=5.0) as client:
        seen: list[tuple[int, int]] = []
        directory(client).observe(lambda epoch, address: seen.append((epoch, address.port)))
        client.set("a", "1")
        first = ha.master()
        first.kill()
        client.set("a", "2")
        second = next(each for each in ha.nodes if each is not first)
        assert seen == [(1, first.port), (2, second.port)]


def test_nothing_is_logged_that_holds_a_password(
    ha: RedisHA, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with open_redis(ha.url(), deadline=5.0) as client:
        client.set("a", "1")
        ha.master().kill()
        client.set("a", "2")
        assert directory(client).view().via == "sentinel"
        shown = caplog.text + repr(client) + repr(directory(client).view())
        assert ha.password not in shown
        assert ha.sentinel_password not in shown


def test_a_store_answers_from_the_database_during_a_failover_and_caches_again_after_it(
    ha: RedisHA, hybrid: Hybrid
) -> None:
    with connect(attrs.evolve(hybrid.settings, redis_url=ha.url())) as store:
        store.messages.save_many(make_messages(50, channel_id=-1001))
        ids = [each.message_id for each in store.messages.latest(-1001, limit=50)]
        old = ha.master()
        old.pause()
        longest, end = 0.0, time.monotonic() + 5.0
        while time.monotonic() < end:
            began = time.monotonic()
            assert set(store.messages.get_many(-1001, ids)) == set(ids)
            longest = max(longest, time.monotonic() - began)
        hits = store.cache.stats().hits
        assert len(store.messages.get_many(-1001, ids)) == len(ids)
        hits = store.cache.stats().hits - hits
        print(f"\nlongest read during the failover {longest:.2f} s, {hits} hits after it")
        assert hits == len(ids)
        assert longest < 1.5
