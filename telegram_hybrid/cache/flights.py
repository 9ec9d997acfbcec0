"""Flights: threads of one process that read the same key at the same time share one read."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
_NEVER = float("-inf")
#: Seconds that a thread waits for another one's read. Longer takes only one whose end was lost: an
#: exception of a signal handler may come between any two steps.
PATIENCE = 10.0


class Flight(Generic[T]):
    """One read under way. `proven_at` is noted by who reads, and counts when the flight lands.

    It is the last moment (monotonic) at which somebody may have begun for whom this read is right.
    """

    __slots__ = ("_aloft", "_left", "_outcome", "proven_at")

    def __init__(self) -> None:
        self.proven_at = _NEVER
        self._outcome: tuple[float, T | None, Exception | None] | None = None
        self._aloft = Lock()
        self._aloft.acquire()
        self._left = False

    def wait(self) -> bool:
        """Return when this has landed, or False for one that does not end.

        Those who wait are woken one by one, not in a rush.
        """
        if landed := self._aloft.acquire(timeout=PATIENCE):
            self._aloft.release()
        return landed

    def outcome(self, began: float) -> tuple[T | None, Exception | None] | None:
        """Return the value or the error for who began then; None if they must read again."""
        if self._outcome is None or self._outcome[0] < began:
            return None
        return self._outcome[1:]

    def land(self, value: T | None, error: Exception | None) -> None:
        """Have this be the outcome."""
        self._outcome = self.proven_at, value, error

    def leave(self) -> None:
        """Wake who waits; without an outcome they begin again. Legal again."""
        if not self._left:
            self._left = True
            self._aloft.release()


class Flights:
    """At most one read of each key is under way; its outcome goes to those it is right for.

    A read proves its outcome at some moment: when it asked Redis for the value that it hit or
    filled, or when it began to load. Whatever a thread that began before that moment could know
    of is in the outcome, so it may take it (P5). One that began later reads again. So under a
    rush nobody waits for more than the read that is under way and the next one, and Redis is asked
    once for all who came meanwhile.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget what is under way: a parent process's threads, which never land here."""
        self._flights: dict[str, Flight[Any]] = {}
        self._counting = Lock()
        #: How many times a thread waited for another one's read.
        self.waits = 0

    def share(self, key: str, began: float, read: Callable[[Flight[T]], T]) -> T:
        """Read `key`, or take what another thread reads.

        `began` is when this thread began (monotonic). `read` notes its proofs on its flight. An
        error of the read is raised in every thread that it is right for.
        """
        mine: Flight[T] = Flight()
        try:
            # One dict operation, which no other thread can come between.
            while (other := self._flights.setdefault(key, mine)) is not mine:
                with self._counting:
                    self.waits += 1
                if not other.wait():
                    self._forget(key, other)
                outcome = other.outcome(began)
                if outcome is not None:
                    value, error = outcome
                    if error is not None:
                        raise error
                    return cast("T", value)
            try:
                found = read(mine)
            except Exception as error:
                mine.land(None, error)
                raise
            mine.land(found, None)
            return found
        finally:
            self.leave(key, mine)

    def leave(self, key: str, flight: Flight[Any]) -> None:
        """Let others read `key` now; who waits for this flight takes its outcome, if it has one."""
        self._forget(key, flight)
        flight.leave()

    def _forget(self, key: str, flight: Flight[Any]) -> None:
        if self._flights.get(key) is flight:
            self._flights.pop(key, None)
