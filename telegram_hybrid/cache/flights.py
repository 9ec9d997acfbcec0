"""Flights: threads of one process that read the same missing key share one read."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Lock
from typing import Any, Generic, TypeVar

import attrs

T = TypeVar("T")


@attrs.define(slots=True)
class _Flight(Generic[T]):
    landed: Event = attrs.field(factory=Event)
    value: T | None = None
    error: Exception | None = None
    #: The last moment (monotonic) at which somebody who began by then may have this outcome.
    proven_at: float = float("-inf")


class Flights:
    """At most one read of each key is under way; its outcome goes to those it is right for.

    A read proves its outcome at some moment: when it asked Redis for the value that it hit or
    filled, or when it began to load. Whatever a thread that began before that moment could know
    of is in the outcome, so it may take it (P5). One that began later reads again.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget what is under way: a parent process's threads, which never land here."""
        self._lock = Lock()
        self._flights: dict[str, _Flight[Any]] = {}
        #: How many threads waited for another one's read.
        self.waits = 0

    def join(self, key: str, began: float, read: Callable[[Proof], T]) -> T | None:
        """Read `key`, or wait for who does; None if that outcome is not for us: begin again.

        `began` is when this thread began (monotonic). `read` notes its proofs on what it is given.
        An error of the read is raised in every thread that it is right for.
        """
        with self._lock:
            other = self._flights.get(key)
            if other is None:
                flight: _Flight[T] = _Flight()
                self._flights[key] = flight
            else:
                self.waits += 1
        if other is not None:
            other.landed.wait()
            if other.proven_at < began:
                return None
            if other.error is not None:
                raise other.error
            found: T | None = other.value
            return found
        proof = Proof()
        try:
            value = flight.value = read(proof)
        except Exception as error:
            flight.error = error
            raise
        else:
            return value
        finally:
            flight.proven_at = proof.at
            with self._lock:
                del self._flights[key]
            flight.landed.set()


class Proof:
    """Until when those may have begun for whom a read is right (monotonic)."""

    def __init__(self) -> None:
        self.at = float("-inf")
