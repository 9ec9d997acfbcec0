"""SourceFile: one file opened for reading forward, with its size, position and clear refusals."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from telegram_hybrid.errors import InvalidFile

#: Bytes read at a time.
CHUNK = 65_536

#: First bytes that tell another format, and what to say about it.
_FOREIGN = (
    (b"\x1f\x8b", "gzip-compressed; unpack it first"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"\xef\xbb\xbf", "UTF-8 with a byte order mark; save it as UTF-8 without one"),
    (b"\xff\xfe", "UTF-16 or UTF-32; save it as UTF-8"),
    (b"\xfe\xff", "UTF-16; save it as UTF-8"),
    (b"\x00\x00\xfe\xff", "UTF-32; save it as UTF-8"),
    (b"<", "HTML or XML; in Telegram Desktop choose the export format JSON"),
)


class Closing(ABC):
    """A context manager that gives itself, and closes itself at the end."""

    @abstractmethod
    def close(self) -> None:
        """Close; closing twice is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SourceFile(Closing):
    """A regular file, read once from front to end.

    `size` is in bytes; `position` is how many of them were read, for progress bars. `place` is
    the last complete item, set by whoever walks the file, for error messages; `item_from` is the
    position at which an unfinished one began.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open `path`. Raises `InvalidFile` for what cannot be an export: see `problem`."""
        self.path = Path(path)
        self.name = str(path)
        self.position = 0
        self.place: str | None = None
        self.item_from: int | None = None
        try:
            status = self.path.stat()
            if stat.S_ISDIR(status.st_mode):
                raise self.error("is a directory; name the result.json in it")
            if not stat.S_ISREG(status.st_mode):
                raise self.error("is not a regular file")
            self.size = status.st_size
            self._file: BinaryIO = self.path.open("rb", buffering=0)
        except FileNotFoundError as error:
            raise self.error("does not exist") from error
        except (OSError, ValueError) as error:
            raise self.error(f"cannot be read: {error}") from error
        self.head = self._sniff()

    def _sniff(self) -> bytes:
        try:
            head = self.read(CHUNK)
            self.rewind()
            if not head.strip():
                raise self.error("is empty")
            for magic, problem in _FOREIGN:
                if head.startswith(magic):
                    raise self.error(f"is {problem}")
        except InvalidFile:
            self.close()
            raise
        return head

    def error(self, problem: str, *, field: str = "file", place: str | None = None) -> InvalidFile:
        """Return (not raise) the refusal of this file, naming it."""
        return InvalidFile(field, problem, where=f"{self.name}: {place}" if place else self.name)

    def after(self) -> str:
        """Return " after messages[12]", or nothing when no item is complete yet."""
        return f" after {self.place}" if self.place else " before any message"

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes, b"" at the end. Raises `InvalidFile` if the disk fails."""
        try:
            data = self._file.read(count)
        except (OSError, ValueError) as error:
            raise self.error(f"cannot be read at byte {self.position:,}: {error}") from error
        self.position += len(data)
        return data

    def rewind(self) -> None:
        """Go back to the first byte."""
        self._file.seek(0)
        self.position = 0

    def reopen(self) -> SourceFile:
        """Return the same file opened a second time, with a position of its own."""
        return SourceFile(self.path)

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._file.close()
