"""The gate's thread: it probes so that no reader has to, repeats what is owed, and ends.

Broken on purpose and seen to fail: a gate that trusts before it repeated; one whose thread a fork
leaves behind for good; a `close` that does not wait for it.
"""

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator

import attrs
import pytest

from telegram_hybrid.cache import gate as gates
from telegram_hybrid.cache import ledger
from telegram_hybrid.cache.gate import Gate
from telegram_hybrid.cache.ledger import Stale
from telegram_hybrid.model import ChannelWrite

WRITES = [ChannelWrite(-1, 5, ())]


@attrs.define
class Server:
    """A Redis that is there or not, and what it was asked."""

    there: bool = True
    takes: bool = True
    probes: list[str] = attrs.field(factory=list)  # the threads that probed
    told: list[dict[int, int]] = attrs.field(factory=list)
    opened: int = 0

    def probe(self) -> None:
        self.probes.append(threading.current_thread().name)
        if not self.there:
            raise ConnectionError

    def repay(self, stale: Stale) -> bool:
        self.told.append(dict(stale.versions))
        return self.takes

    def on_open(self) -> None:
        self.opened += 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "GRACE", 0.05)
    monkeypatch.setattr(gates, "_AGAIN", 0.01)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def gate(server: Server) -> Iterator[Gate]:
    made = Gate(server.probe, server.repay, server.on_open)
    yield made
    made.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


#: Those of other tests' gates, which were not closed.
_others: set[threading.Thread] = set()


def all_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name == "telegram_hybrid gate"}


@pytest.fixture(autouse=True)
def only_ours() -> None:
    _others.clear()
    _others.update(all_threads())


def threads() -> set[threading.Thread]:
    return all_threads() - _others


def test_a_gate_that_is_dropped_takes_its_thread_along() -> None:
    # Broken on purpose: a thread that holds the gate itself goes on for ever.
    dropped = Gate(lambda: None, lambda _: False, lambda: None)
    dropped.owe(WRITES)
    assert threads()
    del dropped
    gc.collect()
    until(lambda: threads() == set())


def test_while_all_is_well_there_is_no_thread(gate: Gate) -> None:
    gate.answered(0.001)
    assert gate.applied(WRITES, gate.turn)
    assert gate.trusted
    assert threads() == set()


def test_a_lost_redis_is_probed_by_the_thread_until_it_answers(gate: Gate, server: Server) -> None:
    server.there = False
    for _ in range(2):
        gate.failed(timeout=True)
    assert not gate.trusted
    assert not gate.reachable
    assert server.opened == 1
    until(lambda: len(server.probes) >= 2)
    assert set(server.probes) == {"telegram_hybrid gate"}
    gate.owe(WRITES)
    server.there = True
    until(lambda: gate.trusted)
    assert {-1: 5} in server.told
    assert gate.state.value == "closed"
    until(lambda: threads() == set())


def test_what_is_owed_is_repeated_until_it_is_taken_and_trusted_only_then(
    gate: Gate, server: Server
) -> None:
    server.takes = False
    gate.owe(WRITES)
    assert not gate.trusted
    assert gate.reachable, "others may be told meanwhile"
    until(lambda: len(server.told) >= 3)
    assert not gate.trusted
    server.takes = True
    until(lambda: gate.trusted)
    assert server.told[-1] == {-1: 5}


def test_a_new_master_is_told_of_what_was_acknowledged_and_of_what_was_under_way(
    gate: Gate, server: Server
) -> None:
    assert gate.applied([ChannelWrite(-1, 5, ())], gate.turn)
    turn = gate.turn
    gate.moved()
    assert not gate.trusted
    assert gate.applied([ChannelWrite(-2, 6, ())], turn) is False, "the old master said so"
    until(lambda: gate.trusted)
    said = {channel: version for each in server.told for channel, version in each.items()}
    assert said == {-1: 5, -2: 6}


def test_what_was_acknowledged_last_is_not_forgotten_while_there_is_no_master() -> None:
    # Seen to fail while the ledger aged by the clock: of a failover that took 20 s, as with
    # Sentinel's own down-after of 30 s, nothing was repeated.
    server, now = Server(), [1000.0]
    gate = Gate(server.probe, server.repay, server.on_open, clock=lambda: now[0])
    for version in range(1, 61):
        now[0] += 1.0
        gate.answered(0.001)
        gate.applied([ChannelWrite(-version, version, ())], gate.turn)
    now[0] += 3600.0
    gate.moved()
    until(lambda: server.told)
    told = server.told[0].values()
    assert set(range(51, 61)) <= set(told), "what the last ten seconds brought"
    assert min(told) > 30, "and not much more"
    now[0] += ledger.GRACE
    until(lambda: gate.trusted)
    gate.close()


def test_close_ends_the_thread_and_a_later_doubt_starts_another(gate: Gate, server: Server) -> None:
    server.takes = False
    gate.owe(WRITES)
    gate.close()
    assert threads() == set()
    gate.close()
    server.takes = True
    gate.mend()
    until(lambda: gate.trusted)


def test_where_no_thread_can_be_started_nobody_hears_of_it_and_the_next_one_mends(
    gate: Gate, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail: the error reached whoever had just committed, and the gate took the thread that
    # never began for one that mends: Redis was not trusted again.
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(gates.Thread, "start", refuse)
        gate.owe(WRITES)
        assert not gate.trusted
    gate.mend()
    until(lambda: gate.trusted)
    assert server.told == [{-1: 5}]


def test_a_forked_child_mends_for_itself(gate: Gate, server: Server) -> None:
    server.takes = False
    gate.owe(WRITES)
    until(lambda: server.told)
    child = os.fork()
    if child == 0:  # pragma: no cover
        code = 1
        try:
            assert not gate.trusted
            server.takes = True
            gate.mend()
            until(lambda: gate.trusted)
            code = 0 if server.told[-1] == {-1: 5} else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not gate.trusted
