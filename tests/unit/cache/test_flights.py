"""Flights: who shares a read, and who must read again. Ordered by events, not by time."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from telegram_hybrid.cache.flights import Flights, Proof
from telegram_hybrid.cache.protocol import Answer


class Flying:
    """A read of "key" that is under way in its own thread until `land`."""

    def __init__(self, flights: Flights, proven_at: float, outcome: Callable[[], Any]) -> None:
        self._begun, self._may_land = threading.Event(), threading.Event()
        self._outcome, self._proven_at = outcome, proven_at
        self._pool = ThreadPoolExecutor()
        self._flights = flights
        self.first = self._pool.submit(flights.join, "key", 0.0, self._read)
        assert self._begun.wait(10)

    def _read(self, proof: Proof) -> Any:
        self._begun.set()
        assert self._may_land.wait(10)
        proof.at = self._proven_at
        return self._outcome()

    def joined_by(self, began: float, key: str = "key") -> Future[Any]:
        """Another thread that began then; returns once it waits."""
        waits = self._flights.waits
        future = self._pool.submit(self._flights.join, key, began, unwanted)
        while self._flights.waits == waits:
            assert not future.done(), future.result()
        return future

    def land(self) -> None:
        self._may_land.set()
        self._pool.shutdown()


def unwanted(_: Proof) -> Any:
    raise AssertionError("read although another thread is reading")


def test_all_who_began_before_its_proof_share_one_read() -> None:
    flights = Flights()
    reads: list[str] = []
    flying = Flying(flights, 10.0, lambda: reads.append("read") or "value")
    others = [flying.joined_by(began) for began in (1.0, 5.0, 10.0)]
    flying.land()
    assert flying.first.result() == "value"
    assert [other.result() for other in others] == ["value"] * 3
    assert reads == ["read"]


def test_who_began_after_its_proof_reads_again() -> None:
    # P5. Seen to fail when `proven_at` is not compared.
    flights = Flights()
    flying = Flying(flights, 10.0, lambda: "old")
    early, late = flying.joined_by(10.0), flying.joined_by(10.001)
    flying.land()
    assert early.result() == "old"
    assert late.result() is None

    def again(proof: Proof) -> str:
        proof.at = 11.0
        return "new"

    assert flights.join("key", 10.001, again) == "new"


def test_that_there_is_no_such_message_is_shared_too() -> None:
    flying = Flying(Flights(), 10.0, lambda: Answer(None, 0, 1))
    other = flying.joined_by(1.0)
    flying.land()
    assert other.result() == Answer(None, 0, 1)


def test_an_error_is_raised_in_everybody_it_is_right_for() -> None:
    flights = Flights()

    def failing() -> Any:
        raise LookupError("no database")

    flying = Flying(flights, 10.0, failing)
    early, late = flying.joined_by(1.0), flying.joined_by(11.0)
    flying.land()
    for future in (flying.first, early):
        with pytest.raises(LookupError, match="no database"):
            future.result()
    assert late.result() is None


def test_a_read_that_proved_nothing_is_for_nobody_else() -> None:
    def failing() -> Any:
        raise LookupError

    flying = Flying(Flights(), float("-inf"), failing)
    other = flying.joined_by(0.0)
    flying.land()
    assert other.result() is None


def test_other_keys_are_read_meanwhile() -> None:
    flights = Flights()
    flying = Flying(flights, 10.0, lambda: "value")
    assert flights.join("other", 0.0, lambda _: "other's") == "other's"
    flying.land()
    assert flying.first.result() == "value"


def test_a_landed_read_is_not_kept() -> None:
    flights = Flights()
    assert flights.join("key", 0.0, lambda _: 1) == 1
    assert flights.join("key", 0.0, lambda _: 2) == 2
