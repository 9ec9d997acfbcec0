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

    def hit(self, reading: Reading[T]) -> Answer[T] | None:
        """Return what the cache has at once; None if it has to be loaded."""
        request = next(reading)
        try:
            if isinstance(request, Get):
                reading.send(self._store.ask(request))
        except StopIteration as hit:
            answer: Answer[T] = hit.value
            return answer
        return None

    def run(self, reading: Reading[T], load: Loader) -> Answer[T]:
        """Drive a reading to its answer."""
        return self._drive(reading, load, Flight())

    def share(self, key: str, begin: Callable[[], Reading[T]], load: Loader) -> Answer[T]:
        """Read one value, once for all threads that ask for it at the same time."""

        def read(flight: Flight[Answer[T]]) -> Answer[T]:
            return self._drive(begin(), load, flight, lambda: self.flights.leave(key, flight))

        return self.flights.share(key, monotonic(), read)

    def _drive(
        self,
        reading: Reading[T],
        load: Loader,
        flight: Flight[Answer[T]],
        leave: Callable[[], object] = lambda: None,
    ) -> Answer[T]:
        """Perform the requests of a reading, and note on its flight what they prove."""
        try:
            request = next(reading)
            while True:
                asked_at = monotonic()
                if isinstance(request, Lease) and request.early:
                    leave()
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
