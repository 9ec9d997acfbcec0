"""Sentinels dead, mute, wrong or none at all: the direct host serves, until they return (P8).

The figures that a test measures are printed (`pytest -s`, or after a failure).
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from redis_load import Load, directory, until
from servers.redis_ha import Node, RedisHA

from telegram_hybrid import health
from telegram_hybrid.connect.redis import NoReply, NotConnected, open_redis
from telegram_hybrid.settings import Settings

pytestmark = pytest.mark.faults


def answer_while_restarting(client: redis.Redis, node: Node) -> object:
    """What GET a returns when the server dies before and comes back 0.7 s after it is called.

    Nothing, in place of an error: the deployed cache keeps no value over a restart.
    """
    node.kill()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(client.get, "a")
        time.sleep(0.7)
        node.start()  # in this thread: a server ends with the thread that started it
        return answer.result()


def test_sentinels_dead_at_the_start_cost_less_than_half_a_second(ha: RedisHA) -> None:
    for each in ha.sentinels:
        each.kill()
    master, _ = ha.nodes
    with open_redis(ha.url(f"direct={master.address}")) as client:
        began = time.monotonic()
        client.set("a", "1")
        spent = time.monotonic() - began
        view = directory(client).view()
        settings = Settings(
            database_url="postgresql://127.0.0.1:1/none",
            redis_url=ha.url(f"direct={master.address}"),
        )
        found = health.check(settings)["redis"]
        ha.sentinels[1].start()
        back = until(lambda: directory(client).view().via == "sentinel", 5.0)
        print(f"\ndead at the start: {spent:.3f} s to the first answer, back after {back:.2f} s")
        print(found)
        assert spent < 0.5
        assert (view.via, str(view.master)) == ("direct", master.address)
        assert "no sentinel answers" in view.degraded
        assert found.state is health.State.DEGRADED
        assert found.via == "direct"
        assert not directory(client).view().degraded
        assert directory(client).view().epoch == 1
        assert client.get("a") == b"1"


def test_mute_sentinels_at_the_start_cost_less_than_half_a_second(ha: RedisHA) -> None:
    for each in ha.sentinels:
        each.pause()
    with open_redis(ha.url(f"direct={ha.nodes[0].address}")) as client:
        began = time.monotonic()
        client.set("a", "1")
        spent = time.monotonic() - began
        ha.sentinels[2].resume()
        back = until(lambda: directory(client).view().via == "sentinel", 5.0)
        print(f"\nmute at the start: {spent:.3f} s to the first answer, back after {back:.2f} s")
        assert spent < 0.5


@pytest.mark.parametrize("how", ["kill -9", "SIGSTOP"])
def test_sentinels_dying_later_are_not_noticed_by_callers(ha: RedisHA, how: str) -> None:
    with open_redis(ha.url(f"direct={ha.nodes[0].address}")) as client:
        load = Load(client)
        with load.running(2):
            time.sleep(0.5)
            for each in ha.sentinels:
                each.pause() if how == "SIGSTOP" else each.kill()
            noticed = until(lambda: directory(client).view().via == "direct", 5.0)
            time.sleep(1.0)
            ha.sentinels[0].resume() if how == "SIGSTOP" else ha.sentinels[0].start()
            back = until(lambda: directory(client).view().via == "sentinel", 5.0)
        print(
            f"\nsentinels {how}: direct after {noticed:.2f} s, longest of {len(load.calls):,} calls"
            f" {load.longest():.3f} s, {len(load.errors)} errors, back after {back:.2f} s"
        )
        assert load.errors == []
        assert load.longest() < 0.5
        assert noticed < (0.5 if how == "kill -9" else 0.5 + 0.3)


def test_a_master_that_dies_without_any_sentinel_comes_back_through_the_direct_host(
    ha: RedisHA,
) -> None:
    for each in ha.sentinels:
        each.kill()
    with open_redis(ha.url(f"direct={ha.nodes[0].address}"), deadline=5.0) as client:
        client.set("a", "1")
        assert answer_while_restarting(client, ha.nodes[0]) is None


def test_two_mute_sentinels_add_less_than_three_tenths_of_a_second(ha: RedisHA) -> None:
    def first_call() -> float:
        with open_redis(ha.url()) as client:
            began = time.monotonic()
            client.ping()
            return time.monotonic() - began

    usual = min(first_call() for _ in range(3))
    ha.sentinels[0].pause()
    ha.sentinels[1].pause()
    with open_redis(ha.url()) as client:
        began = time.monotonic()
        client.ping()
        first = time.monotonic() - began
        load = Load(client)
        with load.running(2):
            time.sleep(3.0)
        print(
            f"\ntwo of three mute: first call {first:.3f} s (usually {usual:.3f} s);"
            f" longest of {len(load.calls):,} later ones {load.longest():.3f} s"
        )
        assert first - usual < 0.3 + 0.1  # the rest is threads that wait for a processor
        assert load.errors == []
        assert load.longest() < 0.3
        assert directory(client).view().via == "sentinel"


def test_a_replica_as_the_direct_host_leads_to_its_master(ha: RedisHA) -> None:
    # Broken on purpose: without the proof by ROLE the SET meets a read-only replica.
    master, replica = ha.nodes
    for each in ha.sentinels:
        each.kill()
    with open_redis(ha.url(f"direct={replica.address}")) as client:
        client.set("a", "1")
        assert str(directory(client).view().master) == master.address


def test_a_plain_redis_among_the_sentinels_is_skipped_with_one_warning(
    ha: RedisHA, caplog: pytest.LogCaptureFixture
) -> None:
    plain = ha.nodes[1]
    plain.ask("CONFIG", "SET", "requirepass", ha.sentinel_password)  # lets us in, as one without
    with open_redis(ha.url(hosts=f"{plain.address},{ha.hosts}")) as client:
        client.set("a", "1")
        time.sleep(1.0)
        warnings = [each.getMessage() for each in caplog.records if "sentinel" in each.getMessage()]
        print(f"\n{warnings}")
        assert len(warnings) == 1
        assert f"{plain.address} is a plain Redis, not a sentinel" in warnings[0]
        assert "skipped" in warnings[0]
        assert directory(client).view().via == "sentinel"


def test_a_sentinel_that_slept_through_a_failover_is_not_believed(ha: RedisHA) -> None:
    # The old master is back and calls itself master, and the only sentinel left agrees with it.
    client = open_redis(ha.url(), deadline=5.0)
    old, sleeper = ha.master(), ha.sentinels[0]
    client.set("a", "1")
    sleeper.pause()
    old.kill()
    new = next(each for each in ha.nodes if each is not old)
    # Two that vote may both vote for themselves, and vote again only after twice failover-timeout.
    until(new.is_master, 60)
    client.set("a", "2")
    until(lambda: ha.named_by(ha.sentinels[1]) == new.port, 5)
    time.sleep(0.5)
    for each in ha.sentinels[1:]:
        each.kill()
    old.start()
    sleeper.resume()
    with client:
        for number in range(20):
            try:
                client.set(f"key:{number}", "1")
            except (NoReply, NotConnected):
                continue
            break
    assert old.ask("KEYS", "key:*") == [] or not old.is_master()


def test_a_plain_server_that_restarts_is_no_error_either(ha: RedisHA) -> None:
    master = ha.nodes[0]
    for each in ha.sentinels:
        each.kill()
    url = f"redis://:{master.password}@{master.address}"
    with open_redis(url, deadline=5.0) as client:
        client.set("a", "1")
        assert answer_while_restarting(client, master) is None
