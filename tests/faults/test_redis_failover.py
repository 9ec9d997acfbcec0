"""Promise P8 on real servers: a master, a replica and three sentinels, killed and stopped.

The figures that a test measures are printed (`pytest -s`, or after a failure).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import redis
from servers.ports import free_ports
from servers.redis_ha import DOWN_AFTER, Node, RedisHA

from telegram_hybrid import Hybrid, health
from telegram_hybrid.connect.redis import (
    Directory,
    NoReply,
    NotConnected,
    directory_of,
    open_redis,
)
from telegram_hybrid.delivery.wake import RedisWake
from telegram_hybrid.hybrid import connect
from telegram_hybrid.settings import Settings
from telegram_hybrid.testing import make_messages

pytestmark = pytest.mark.faults

Disturb = Callable[[Node], None]


@pytest.fixture
def ha(tmp_path: Path) -> Iterator[RedisHA]:
    if missing := RedisHA.available():
        pytest.skip(missing)
    with RedisHA(tmp_path / "ha") as servers:
        yield servers


def directory(client: redis.Redis) -> Directory:
    found = directory_of(client)
    assert found is not None
    return found


def until(condition: Callable[[], bool], seconds: float) -> float:
    """Wait for `condition`; the seconds it took, or a failed test."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"did not happen within {seconds:g} s"
        time.sleep(0.005)
    return time.monotonic() - began


def answer_while_restarting(client: redis.Redis, node: Node) -> object:
    """What GET a returns when the server dies before and comes back 0.7 s after it is called."""
    node.kill()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(client.get, "a")
        time.sleep(0.7)
        node.start()  # in this thread: a server ends with the thread that started it
        return answer.result()


@attrs.define
class Load:
    """Threads that write a key of their own and read it back, over and over."""

    client: redis.Redis
    calls: list[tuple[float, float]] = attrs.field(factory=list)  # began, seconds
    acknowledged: list[tuple[str, float]] = attrs.field(factory=list)  # key, began
    errors: list[Exception] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)

    @contextmanager
    def running(self, threads: int = 8) -> Iterator[None]:
        stop = threading.Event()
        workers = [
            threading.Thread(target=self._work, args=(number, stop)) for number in range(threads)
        ]
        for each in workers:
            each.start()
        try:
            yield
        finally:
            stop.set()
            for each in workers:
                each.join()

    def longest(self) -> float:
        return max(seconds for _, seconds in self.calls)

    def lost(self, server: Node, since: float = 0.0) -> list[str]:
        """Acknowledged keys that `server` does not have, of writes that began after `since`."""
        keys = [key for key, when in self.acknowledged if when >= since]
        found: list[str] = []
        with redis.Redis(port=server.port) as client:
            for at in range(0, len(keys), 1000):
                some = keys[at : at + 1000]
                replies = client.mget(some)
                found += [k for k, v in zip(some, replies, strict=True) if v != k.encode()]
        return found

    def _work(self, number: int, stop: threading.Event) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            key, began = f"load:{number}:{turn}", time.monotonic()
            try:
                self._timed(lambda key=key: self.client.set(key, key))
                self.acknowledged.append((key, began))
                if self._timed(lambda key=key: self.client.get(key)) not in (key.encode(), None):
                    self.wrong.append(key)
            except (redis.RedisError, OSError) as error:
                self.errors.append(error)
            time.sleep(0.002)

    def _timed(self, call: Callable[[], object]) -> object:
        began = time.monotonic()
        try:
            return call()
        finally:
            self.calls.append((began, time.monotonic() - began))


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
                old.stop()
            else:
                old.kill()
            fault = time.monotonic()
            new = next(each for each in ha.nodes if each is not old)
            promoted = until(new.is_master, 10)
            until(lambda: all(ha.named_by(each) == new.port for each in ha.sentinels), 10)
            time.sleep(0.5)
            back = time.monotonic()
            if how == "SIGSTOP":
                old.cont()
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
        # Callers hear of the promotion at once: 12 to 64 ms later in 12 failovers. Sentinel's own
        # part is up to 2.45 s after a SIGSTOP: a ping each 1.1 s, then down-after, then a vote. It
        # can take longer on a busy machine, and only then may we.
        assert longest < promoted + 0.2
        if promoted < DOWN_AFTER + 1.5 - 0.1:
            assert longest < DOWN_AFTER + 1.5


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
        each.stop()
    with open_redis(ha.url(f"direct={ha.nodes[0].address}")) as client:
        began = time.monotonic()
        client.set("a", "1")
        spent = time.monotonic() - began
        ha.sentinels[2].cont()
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
                each.stop() if how == "SIGSTOP" else each.kill()
            noticed = until(lambda: directory(client).view().via == "direct", 5.0)
            time.sleep(1.0)
            ha.sentinels[0].cont() if how == "SIGSTOP" else ha.sentinels[0].start()
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
        assert answer_while_restarting(client, ha.nodes[0]) == b"1"


def test_two_mute_sentinels_add_less_than_three_tenths_of_a_second(ha: RedisHA) -> None:
    def first_call() -> float:
        with open_redis(ha.url()) as client:
            began = time.monotonic()
            client.ping()
            return time.monotonic() - began

    usual = min(first_call() for _ in range(3))
    ha.sentinels[0].stop()
    ha.sentinels[1].stop()
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
    plain = ha.nodes[0]
    with open_redis(ha.url(hosts=f"{plain.address},{ha.hosts}")) as client:
        client.set("a", "1")
        time.sleep(1.0)
        warnings = [each.getMessage() for each in caplog.records if "sentinel" in each.getMessage()]
        print(f"\n{warnings}")
        assert len(warnings) == 1
        assert f"{plain.address} is a plain Redis, not a sentinel" in warnings[0]
        assert "skipped" in warnings[0]
        assert directory(client).view().via == "sentinel"


def test_what_is_not_safe_to_repeat_is_sent_once(ha: RedisHA) -> None:
    # Broken on purpose: with INCR among the repeatable commands it is performed twice.
    master = ha.master()
    with open_redis(ha.url(), deadline=5.0) as client:
        client.set("other", "0")
        master.stop()
        threading.Timer(0.6, master.cont).start()
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
        return client.get("a") == b"1"
    except (NoReply, NotConnected):
        return False


def test_a_subscription_moves_with_the_master(ha: RedisHA) -> None:
    # Broken on purpose: without hanging up it stays with the stopped master for ever.
    with open_redis(ha.url(), deadline=None) as client, open_redis(ha.url()) as sender:
        wake = RedisWake(client, "topic")
        assert not wake.wait(0.3)
        sender.publish("topic", b"")
        assert wake.wait(2.0)
        old = ha.master()
        old.stop()
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


def test_a_sentinel_that_slept_through_a_failover_is_not_believed(ha: RedisHA) -> None:
    # The old master is back and calls itself master, and the only sentinel left agrees with it.
    client = open_redis(ha.url(), deadline=5.0)
    old, sleeper = ha.master(), ha.sentinels[0]
    client.set("a", "1")
    sleeper.stop()
    old.kill()
    client.set("a", "2")
    new = next(each for each in ha.nodes if each is not old)
    until(lambda: ha.named_by(ha.sentinels[1]) == new.port, 5)
    time.sleep(0.5)
    for each in ha.sentinels[1:]:
        each.kill()
    old.start()
    sleeper.cont()
    with client:
        for number in range(20):
            try:
                client.set(f"key:{number}", "1")
            except (NoReply, NotConnected):
                continue
            break
    assert old.ask("KEYS", "key:*") == [] or not old.is_master()


def test_a_plain_server_that_restarts_is_no_error_either(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    node = Node(tmp_path / "one", port, ["appendonly yes"], sentinel=False)
    node.start()
    try:
        with open_redis(f"redis://127.0.0.1:{port}", deadline=5.0) as client:
            client.set("a", "1")
            assert answer_while_restarting(client, node) == b"1"
    finally:
        node.kill()


def test_nothing_is_logged_that_holds_a_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        RedisHA(tmp_path / "ha", password="hunter2", sentinel_password="hunter3") as servers,
        open_redis(servers.url("sentinel_password=hunter3"), deadline=5.0) as client,
    ):
        client.set("a", "1")
        servers.master().kill()
        client.set("a", "2")
        assert directory(client).view().via == "sentinel"
        shown = caplog.text + repr(client) + repr(directory(client).view())
        assert "hunter" not in shown


def test_a_store_answers_from_the_database_during_a_failover_and_caches_again_after_it(
    ha: RedisHA, hybrid: Hybrid
) -> None:
    with connect(attrs.evolve(hybrid.settings, redis_url=ha.url())) as store:
        store.messages.save_many(make_messages(50, channel_id=-1001))
        ids = [each.message_id for each in store.messages.latest(-1001, limit=50)]
        old = ha.master()
        old.stop()
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
