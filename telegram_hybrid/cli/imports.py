"""The import itself: files through a reader into the store, counted, with progress by bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Literal

import attrs

from telegram_hybrid.cli.progress import Progress, progress
from telegram_hybrid.errors import HybridError, InvalidInput
from telegram_hybrid.model import SaveCounts
from telegram_hybrid.sources import Reader, open_source

if TYPE_CHECKING:
    from telegram_hybrid.hybrid import Hybrid

#: How many of the skipped are shown with their place.
EXAMPLES = 5


@attrs.define(slots=True, kw_only=True)
class Imported:
    """What an import did. `channels` are "id title" of the chats met; `examples` tell places."""

    files: int = 0
    messages_read: int = 0
    inserted: int = 0
    edited: int = 0
    duplicates: int = 0
    skipped: int = 0
    skipped_reasons: dict[str, int] = attrs.field(factory=dict)
    examples: list[str] = attrs.field(factory=list)
    assumed_timezone: int = 0
    channels: list[str] = attrs.field(factory=list)
    seconds: float = 0.0

    def add(self, reader: Reader, saved: SaveCounts) -> None:
        """Count in what one file gave."""
        report = reader.report
        self.files += 1
        self.messages_read += report.messages_read
        self.inserted += saved.inserted
        self.edited += saved.edited
        self.duplicates += saved.duplicates
        for reason, count in report.skipped.items():
            self.skipped += count
            self.skipped_reasons[reason] = self.skipped_reasons.get(reason, 0) + count
        room = EXAMPLES - len(self.examples)
        self.examples += [
            item.detail or f"{item.where}: {item.reason}" for item in report.examples if item.where
        ][:room]
        self.assumed_timezone += report.assumed_timezone
        for channel in reader.channels:
            name = f"{channel.channel_id} {channel.title or ''}".strip()
            if name not in self.channels:
                self.channels.append(name)


def import_files(
    hybrid: Hybrid,
    paths: Sequence[Path],
    *,
    on_error: Literal["raise", "skip"] = "raise",
    timezone: tzinfo,
) -> Imported:
    """Store the messages of each file in turn and register the chats met.

    An error says, besides its own, how much of the file is stored by then.
    """
    started = monotonic()
    done = Imported()
    with progress() as bars:
        bars.begin("importing", sum(path.stat().st_size for path in paths), unit="bytes")
        for path in paths:
            with open_source(path, timezone=timezone, on_error=on_error) as reader:
                done.add(reader, _store(hybrid, reader, bars))
    done.seconds = round(monotonic() - started, 3)
    return done


def _store(hybrid: Hybrid, reader: Reader, bars: Progress) -> SaveCounts:
    saved = SaveCounts()
    before = bars.at("importing")

    def committed(now: SaveCounts) -> None:
        nonlocal saved
        saved += now
        bars.move("importing", before + reader.position)

    try:
        hybrid.messages.save_many(reader, on_commit=committed)
    except HybridError as error:
        if saved.total:
            error.add_note(
                f"{saved.total:,} messages before it are stored; run this again to resume"
            )
        if isinstance(error, InvalidInput):
            _register(hybrid, reader)
        raise
    _register(hybrid, reader)
    bars.move("importing", before + reader.size)
    return saved


def _register(hybrid: Hybrid, reader: Reader) -> None:
    for channel in reader.channels:
        known = hybrid.channels.get(channel.channel_id)
        # An import does not wake a channel that somebody has put to rest.
        active = known is None or known.is_active
        hybrid.channels.register(attrs.evolve(channel, is_active=active))
