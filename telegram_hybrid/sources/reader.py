"""Reader: one file of messages, of whatever kind, as an iterable of Message with a report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, tzinfo
from typing import Any, Literal, Protocol

from telegram_hybrid.errors import InvalidFile, InvalidInput
from telegram_hybrid.model import Channel, Message
from telegram_hybrid.sources.botapi_files import BotApiFile, is_botapi
from telegram_hybrid.sources.desktop import DesktopExport
from telegram_hybrid.sources.files import Closing, SourceFile
from telegram_hybrid.sources.report import Report, Skipped

OnError = Literal["raise", "skip"]


class Source(Protocol):
    """A kind of file: its raw items with their places, and how one becomes a Message."""

    @property
    def kind(self) -> str: ...
    @property
    def channels(self) -> tuple[Channel, ...]: ...
    def items(self) -> Iterator[tuple[str, Any, Any]]: ...
    def convert(self, raw: Any, context: Any, /) -> Message | Skipped: ...


class Reader(Closing):
    """The messages of one file, streamed: iterate it once; a context manager that closes it.

    `report` counts while you iterate, `channels` are the chats met so far, `position` of `size`
    bytes are read. Memory does not depend on the size of the file.
    """

    def __init__(self, file: SourceFile, source: Source, report: Report, on_error: OnError) -> None:
        self._file = file
        self._source = source
        self._on_error = on_error
        self._messages = self._read()
        self.report = report

    @property
    def path(self) -> str:
        """The file, as it was given."""
        return self._file.name

    @property
    def kind(self) -> str:
        """What the file is: "desktop_export" or "bot_api"."""
        return self._source.kind

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels, groups and chats met so far."""
        return self._source.channels

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._file.size

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._file.position

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        """Return the next message.

        Raises `InvalidInput`, naming file, place and field, for a message that cannot be stored
        (with `on_error="skip"` it is counted instead), and `InvalidFile` where the file breaks.
        """
        return next(self._messages)

    def _read(self) -> Iterator[Message]:
        source, report = self._source, self.report
        with self._file:
            for place, raw, context in source.items():
                try:
                    result = source.convert(raw, context)
                except InvalidInput as error:
                    self._refuse(error, place)
                    continue
                if isinstance(result, Skipped):
                    where = f"{self.path}: {place}"
                    report.skip(Skipped(result.reason, where, result.detail))
                else:
                    report.messages_read += 1
                    yield result

    def _refuse(self, error: InvalidInput, place: str) -> None:
        if error.where and self._on_error == "raise":
            raise error
        located = error if error.where else error.at(f"{self.path}: {place}")
        if self._on_error == "raise":
            raise located from error
        field = error.field.partition("[")[0].partition(".")[0]
        self.report.skip(Skipped(f"invalid {field}", located.where, str(located)))

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._messages.close()  # type: ignore[attr-defined]
        self._file.close()


def open_source(
    path: str | os.PathLike[str], *, timezone: tzinfo = UTC, on_error: OnError = "raise"
) -> Reader:
    """Open a file of messages, telling its kind by its content.

    `timezone` is the zone of the exporter's clock, for Desktop exports before June 2022 whose
    dates name none. A message that cannot be stored raises `InvalidInput`; with
    `on_error="skip"` it is counted by reason in the report, the first 100 with their place. A file
    that breaks off raises `InvalidFile` either way, after the messages before the break.

    Raises `InvalidFile`: missing, a directory, empty, compressed, not JSON, not an export.
    """
    if on_error not in ("raise", "skip"):
        raise InvalidInput("on_error", f"{on_error!r} is neither 'raise' nor 'skip'")
    file = SourceFile(path)
    report = Report()
    try:
        source = _source(file, timezone, report)
    except InvalidFile:
        file.close()
        raise
    return Reader(file, source, report, on_error)


def _source(file: SourceFile, timezone: tzinfo, report: Report) -> Source:
    if is_botapi(file.head):
        return BotApiFile(file)
    return DesktopExport(file, timezone=timezone, report=report)
