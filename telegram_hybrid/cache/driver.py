"""Driver: performs a reading's requests one after the other, and shares it between threads."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, TypeAlias, TypeVar

from telegram_hybrid.cache.flights import Flight, Flights
from telegram_hybrid.cache.protocol import Answer, Reading
from telegram_hybrid.cache.requests import Await, Fill, Get, GetResult, Lease, Load, Loaded, Request
from telegram_hybrid.cache.store import Store

T = TypeVar("T")
#: Whatever was committed before one of these was asked is in its reply.
_PROOFS = (Get, GetResult, Load)
#: What reads from the database. Its errors reach the caller.
Loader: TypeAlias = Callable[[Load], Loaded]


class Driver:
    """Drives readings with one Redis."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.flights = Flights()

    def hit(self, reading: Reading[T], load: Loader) -> Answer[T] | None:
        """Return what the cache has at once; None if it has to be loaded."""
        found = self._look(reading, load)
        return found if isinstance(found, Answer) else None

    def run(self, reading: Reading[T], load: Loader) -> Answer[T]:
        """Drive a reading to its answer."""
        found = self._look(reading, load)
        return found if isinstance(found, Answer) else self._drive(reading, found, load, Flight())

    def share(self, key: str, reading: Reading[T], load: Loader) -> Answer[T]:
        """Read one value; once for all threads that miss it at the same time."""
        began = monotonic()
        found = self._look(reading, load)
        if isinstance(found, Answer):
            return found
        if isinstance(found, Lease) and found.early:  # nobody needs to wait for what is not missed
            return self._drive(reading, found, load, Flight())
        request = found
        return self.flights.share(
            key, began, lambda flight: self._drive(reading, request, load, flight)
        )

    def _look(self, reading: Reading[T], load: Loader) -> Answer[T] | Request:
        """Ask the cache, as every reading begins; return its answer, or what is to be done next."""
        try:
            return reading.send(self._perform(next(reading), load))
        except StopIteration as hit:
            answer: Answer[T] = hit.value
            return answer

    def _drive(
        self, reading: Reading[T], request: Request, load: Loader, flight: Flight[Answer[T]]
    ) -> Answer[T]:
        """Perform the requests of a reading from `request` on, and note what they prove."""
        try:
            while True:
                asked_at = monotonic()
                try:
                    reply = self._perform(request, load)
                except BaseException as error:  # noqa: BLE001  (the reading raises it again)
                    if isinstance(request, Load):
                        flight.proven_at = asked_at
                    request = reading.throw(error)
                    continue
                # A refused fill proves nothing more than the load before it did.
                if isinstance(request, _PROOFS) or (isinstance(request, Fill) and reply == [True]):
                    flight.proven_at = asked_at
                request = reading.send(reply)
        except StopIteration as done:
            answer: Answer[T] = done.value
            return answer

    def _perform(self, request: Request, load: Loader) -> Any:
        if isinstance(request, Load):
            return load(request)
        if isinstance(request, Await):
            return self._store.wait(request)
        return self._store.ask(request)
