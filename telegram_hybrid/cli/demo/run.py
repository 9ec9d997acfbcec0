"""The demo from beginning to end: bulk, live, reading back; every figure from a real counter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep

import attrs

from telegram_hybrid.cli.demo.input import Input
from telegram_hybrid.cli.demo.latency import Latencies, timed
from telegram_hybrid.cli.demo.pipeline import Pipeline, pipeline
from telegram_hybrid.cli.demo.reads import read_back
from telegram_hybrid.cli.demo.report import Result
from telegram_hybrid.cli.demo.stamps import StampedHybrid, Stamps
from telegram_hybrid.cli.files import check_files
from telegram_hybrid.cli.progress import Progress, progress
from telegram_hybrid.cli.servers import embedded_settings
from telegram_hybrid.health import check
from telegram_hybrid.hybrid import Hybrid
from telegram_hybrid.model import Message, SaveCounts

#: Seconds between two live posts: 50 a second, more than one busy channel sends at its peak.
INTERVAL = 0.02
_READING, _PUBLISHING, _CONSUMING = "reading, saving", "publishing", "consuming"


@attrs.define(slots=True)
class _Run:
    """One run in progress."""

    hybrid: Hybrid
    pipe: Pipeline
    bars: Progress
    input: Input
    stamps: Stamps
    latencies: Latencies = attrs.field(factory=Latencies)
    saved: SaveCounts = attrs.field(factory=SaveCounts)
    waiting: int = 0

    def bulk(self) -> None:
        """Save everything but what is held back, and wait until it was consumed."""
        self.waiting = self.pipe.relay.backlog().events
        self.hybrid.messages.save_many(self.input.stream(), on_commit=self._committed)
        for channel in self.input.channels.values():
            self.hybrid.channels.register(channel)
        self.pipe.drain(self.show)

    def live(self, messages: Sequence[Message]) -> None:
        """Save one at a time at a steady pace; what is late is not waited for."""
        self.stamps.on = True
        begun = monotonic()
        for index, message in enumerate(messages):
            sleep(max(0.0, begun + index * INTERVAL - monotonic()))
            with timed(self.latencies.save):
                saved = self.hybrid.messages.save(message)
            self._committed(SaveCounts.of([saved]))
        self.pipe.drain(self.show)
        self.latencies.end_to_end = self.stamps.samples()

    def read(self) -> None:
        """Read back what was sent."""
        strict = self.saved.inserted == self.saved.total
        read_back(self.hybrid, self.input.witness, self.latencies, strict=strict)

    def show(self) -> None:
        """Move the bars."""
        published, consumed = self.pipe.moved
        expected = max(published, self.waiting + self.saved.inserted + self.saved.edited)
        self.bars.move(_PUBLISHING, published, expected or None)
        self.bars.move(_CONSUMING, consumed, max(consumed, expected) or None)

    def _committed(self, counts: SaveCounts) -> None:
        self.saved += counts
        self.show()


def run(paths: Sequence[Path], data: Path | None) -> Result:
    """Take the messages of `paths` the whole way; see the command's help.

    With `data` the servers' directories are kept there. Raises `InvalidInput` for a file,
    `EmbeddedError`, `MissingExtra`, or what a server did to us.
    """
    started = monotonic()
    stamps = Stamps()
    size = check_files(paths)
    with progress() as bars:
        source = Input(paths=paths, moved=lambda at: bars.move(_READING, at))
        with (
            embedded_settings(data) as settings,
            StampedHybrid(settings, stamps=stamps) as hybrid,
        ):
            hybrid.migrate()
            bars.begin(_READING, size, unit="bytes")
            bars.begin(_PUBLISHING, None)
            bars.begin(_CONSUMING, None)
            with pipeline(hybrid, stamps) as pipe:
                going = _Run(hybrid, pipe, bars, source, stamps)
                going.bulk()
                going.live(source.held)
                going.read()
            seconds = monotonic() - started
            versions = {each.name: each.version for each in check(settings).services}
            return _result(going, seconds, versions, data)


def _result(
    going: _Run, seconds: float, versions: dict[str, str | None], data: Path | None
) -> Result:
    totals = going.pipe.totals()
    cache = going.hybrid.cache.stats()
    return Result(
        messages_read=going.input.messages_read,
        inserted=going.saved.inserted,
        edited=going.saved.edited,
        duplicates=going.saved.duplicates,
        skipped=sum(going.input.skipped.values()),
        skipped_reasons=going.input.skipped,
        published=going.pipe.relay.counters.published,
        consumed=going.pipe.consumer.counters.consumed,
        stored=totals.stored,
        consumed_total=totals.consumed,
        channels=len(going.input.channels),
        cache_hits=cache.hits,
        cache_misses=cache.misses,
        seconds=round(seconds, 3),
        latency_ms=going.latencies.percentiles(),
        samples=going.latencies.counts(),
        servers={name: versions.get(name) for name in ("postgresql", "redis", "broker")},
        data=str(data) if data else None,
    )
