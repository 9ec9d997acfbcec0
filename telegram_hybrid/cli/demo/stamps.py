"""Commit to handler: when a commit came back and when the consumer's handler was entered.

Both are taken from one monotonic clock, because writer, relay and consumer are threads of this
process. The commit's is taken as soon as COMMIT has returned, before anything that follows it
(invalidation, wake-up) and so before the relay is told; what `save` still does is in the figure.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from telegram_hybrid.hybrid import Hybrid
from telegram_hybrid.model import ChannelWrite, Event, MessageKey

_Version = tuple[MessageKey, int]


class Stamps:
    """Times of commits and of handler entries, by message and version, while `on`."""

    def __init__(self) -> None:
        self.on = False
        self._committed: dict[_Version, float] = {}
        self._entered: dict[_Version, float] = {}

    def committed(self, writes: list[ChannelWrite]) -> None:
        """Note that a commit has just returned."""
        now = perf_counter()
        if self.on:
            for change in (change for write in writes for change in write.changes):
                self._committed[change.key, change.version] = now

    def entered(self, event: Event) -> None:
        """Note that the handler was just called; of several times the first counts."""
        now = perf_counter()
        if self.on:
            self._entered.setdefault((event.key, event.message.version), now)

    def samples(self) -> list[float]:
        """Return the seconds from commit to handler of everything that made both."""
        return [
            self._entered[key] - then
            for key, then in self._committed.items()
            if key in self._entered
        ]


class StampedHybrid(Hybrid):
    """A Hybrid that notes each commit."""

    def __init__(self, *args: Any, stamps: Stamps, **kwargs: Any) -> None:
        self._stamps = stamps
        super().__init__(*args, **kwargs)

    def _after_commit(self, writes: list[ChannelWrite]) -> None:
        self._stamps.committed(writes)
        super()._after_commit(writes)
