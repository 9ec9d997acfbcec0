"""Flights: who shares a read, and who must read again. Ordered by events, not by time."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from telegram_hybrid.cache.flights import Flight, Flights
from telegram_hybrid.cache.protocol import Answer


class Flying:
    """A read of "key" that is under way in its own thread until `land`."""

    def __init__(self, flights: Flights, proven_at: float, outcome: Callable[[], Any]) -> None:
        self._begun, self._may_land = threading.Event(), threading.Event()
        self._outcome, self._proven_at = outcome, proven_at
        self._pool = ThreadPoolExecutor()
        self._flights = flights
        self.first = self._pool.submit(flights.share, "key", 0.0, self._read)
        assert self._begun.wait(10)

    def _read(self, flight: Flight[Any]) -> Any:
        self._begun.set()
        assert self._may_land.wait(10)
        flight.proven_at = self._proven_at
        return self._outcome()

    def joined_by(
        self, began: float, read: Callable[[Flight[Any]], Any] | None = None
    ) -> Future[Any]:
        """Another thread that began then; returns once it waits."""
        waits = self._flights.waits
        future = self._pool.submit(self._flights.share, "key", began, read or unwanted)
        while self._flights.waits == waits:
            assert not future.done(), future.result()
        return future

    def land(self) -> None:
        self._may_land.set()
        self._pool.shutdown()


def unwanted(_: Flight[Any]) -> Any:
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


def proving(at: float, value: str) -> Callable[[Flight[Any]], str]:
    def read(flight: Flight[Any]) -> str:
        flight.proven_at = at
        return value

    return read


def test_who_began_after_its_proof_reads_again() -> None:
    # P5. Seen to fail when `proven_at` is not compared.
    flying = Flying(Flights(), 10.0, lambda: "old")
    early, late = flying.joined_by(10.0), flying.joined_by(10.001, proving(11.0, "new"))
    flying.land()
    assert early.result() == "old"
    assert late.result() == "new"


def test_of_those_who_read_again_one_reads_for_all() -> None:
    # Seen to fail, with a read each, when they did not look for a flight again.
    flights = Flights()
    flying = Flying(flights, 10.0, lambda: "old")
    reads: list[str] = []
    landed = threading.Event()

    def again(flight: Flight[Any]) -> str:
        reads.append("again")
        while flights.waits < 7:  # the four who waited, and three of them once more
            assert not landed.wait(0.001)
        return proving(12.0, "new")(flight)

    late = [flying.joined_by(11.0, again) for _ in range(4)]
    flying.land()
    assert [future.result() for future in late] == ["new"] * 4
    assert reads == ["again"]


def test_who_leaves_its_flight_has_the_others_read_at_once() -> None:
    # An early refresh. Seen to fail, by waiting for ever, when leave() only forgot the flight.
    flights = Flights()
    waiting, may_end = threading.Event(), threading.Event()

    def refresh(flight: Flight[Any]) -> str:
        assert waiting.wait(10)
        flights.leave("key", flight)
        assert may_end.wait(10)
        return proving(20.0, "refreshed")(flight)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(flights.share, "key", 0.0, refresh)
        while not flights._flights:
            assert not first.done()
        other = pool.submit(flights.share, "key", 1.0, proving(2.0, "hit"))
        while not flights.waits:
            assert not other.done()
        waiting.set()
        assert other.result(10) == "hit"
        may_end.set()
        assert first.result(10) == "refreshed"
    assert flights.share("key", 30.0, proving(31.0, "next")) == "next"


def test_who_is_interrupted_leaves_its_flight() -> None:
    flights = Flights()

    def interrupted(_: Flight[Any]) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flights.share("key", 0.0, interrupted)
    assert flights.share("key", 0.0, proving(1.0, "value")) == "value"


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
    early, late = flying.joined_by(1.0), flying.joined_by(11.0, proving(12.0, "value"))
    flying.land()
    for future in (flying.first, early):
        with pytest.raises(LookupError, match="no database"):
            future.result()
    assert late.result() == "value"


def test_a_read_that_proved_nothing_is_for_nobody_else() -> None:
    def failing() -> Any:
        raise LookupError

    flying = Flying(Flights(), float("-inf"), failing)
    other = flying.joined_by(0.0, proving(1.0, "its own"))
    flying.land()
    assert other.result() == "its own"


def test_other_keys_are_read_meanwhile() -> None:
    flights = Flights()
    flying = Flying(flights, 10.0, lambda: "value")
    assert flights.share("other", 0.0, lambda _: "other's") == "other's"
    flying.land()
    assert flying.first.result() == "value"


def test_a_landed_read_is_not_kept() -> None:
    flights = Flights()
    assert flights.share("key", 0.0, lambda _: 1) == 1
    assert flights.share("key", 0.0, lambda _: 2) == 2


def test_a_read_whose_end_was_lost_holds_nobody_up_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Broken on purpose: without the time limit in `wait` the first of these hangs.
    monkeypatch.setattr("telegram_hybrid.cache.flights.PATIENCE", 0.2)
    flights = Flights()
    flights._flights["key"] = Flight()  # its thread was interrupted before it could leave
    assert flights.share("key", 0.0, lambda _: "read") == "read"
    assert flights.share("key", 0.0, lambda _: "read again") == "read again"
    assert flights.waits == 1


def test_leaving_twice_is_legal_and_lands_nobody_elses_flight() -> None:
    flights = Flights()
    flying = Flying(flights, 10.0, lambda: "second")
    first = Flight[str]()
    flights.leave("key", first)
    flights.leave("key", first)
    other = flying.joined_by(1.0)
    flying.land()
    assert other.result() == "second"
