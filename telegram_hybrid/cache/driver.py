"""Driver: performs a reading's requests one after the other, and shares it between threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, TypeAlias, TypeVar

from telegram_hybrid.cache.flights import Flights, Proof
from telegram_hybrid.cache.protocol import Answer, Reading
from telegram_hybrid.cache.requests import Await, Fill, Get, GetResult, Load, Loaded, Request
from telegram_hybrid.cache.store import Store

T = TypeVar("T")
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
        return self._finish(reading, None, load, Proof())

    def share(self, key: str, begin: Callable[[], Reading[T]], load: Loader) -> Answer[T]:
        """Read one value; of the threads that miss it at the same time one reads on for all."""
        while True:
            began = monotonic()
            reading = begin()
            try:
                request = reading.send(self._perform(next(reading), load))
            except StopIteration as hit:
                answer: Answer[T] = hit.value
                return answer
            read = partial(self._finish, reading, request, load)
            shared = self.flights.join(key, began, read)
            if shared is not None:
                return shared

    def _finish(
        self, reading: Reading[T], request: Request | None, load: Loader, proof: Proof
    ) -> Answer[T]:
        """Drive a reading that has asked for `request`; None: that has not begun."""
        try:
            if request is None:
                request = next(reading)
            while True:
                asked_at = monotonic()
                if isinstance(request, Load):
                    proof.at = asked_at
                try:
                    reply = self._perform(request, load)
                except BaseException as error:  # noqa: BLE001  (the reading raises it again)
                    request = reading.throw(error)
                    continue
                # A hit, and a fill that was accepted, prove that nothing was invalidated before.
                accepted = isinstance(request, Fill) and reply == [True]
                if accepted or isinstance(request, Get | GetResult):
                    proof.at = asked_at
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
