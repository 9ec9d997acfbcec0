"""Streamed JSON: a file's parse events, and values built from them in bounded memory.

The parser is ijson (its C backend where it is there); it is fed chunk by chunk, so that memory
does not depend on the size of the file, and the place of an error is known in bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import ijson

from telegram_hybrid.sources.files import CHUNK, SourceFile

Event = tuple[str, Any]
Events = Iterator[Event]

#: Levels of objects and lists within one another. Real exports need about ten.
MAX_DEPTH = 64
#: Bytes of one item, such as a message. Telegram's largest are some ten thousand.
MAX_ITEM = 33_554_432

#: Stands for a lone surrogate on its way through the parser, which would make it a "?".
_MARK = "\ufdd0"
_ESCAPE = re.compile(
    rb"\\(?:x([0-9A-Fa-f]{2})"
    rb"|u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}"
    rb"|(u[dD][89a-fA-F][0-9A-Fa-f]{2})"
    rb"|.)",
    re.DOTALL,
)


def events(file: SourceFile) -> Events:
    """Yield the parse events of one JSON document: (name, value), as `ijson.basic_parse`.

    Integers come as int of any size, fractions as Decimal. Everything before a break is yielded
    first; then `InvalidFile` says "truncated at byte N" or names the byte of the syntax error.
    """
    chunks = _Chunks(file)
    parser = Parser()
    batch = parser.batch
    idle = 0
    try:
        for chunk in chunks:
            failure = parser.feed(chunk)
            idle = 0 if batch else idle + len(chunk)
            yield from _unmarked(batch) if chunks.marked else batch
            batch.clear()
            if failure:
                problem = f"is not JSON at byte {_locate(file):,}{file.after()}"
                raise file.error(f"{problem}: {_first_line(failure)}") from failure
            if idle > MAX_ITEM or file.position - (file.item_from or file.position) > MAX_ITEM:
                raise file.error(f"an item of more than {MAX_ITEM:,} bytes{file.after()}")
    finally:
        failure = parser.finish()
    if failure:
        raise file.error(f"truncated at byte {file.position:,}{file.after()}") from failure
    yield from batch


def build(stream: Events, event: str, value: Any, file: SourceFile) -> Any:
    """Return the value that begins with `event`, as plain dicts, lists and scalars.

    Raises `InvalidFile` if it is nested deeper than 64 levels or larger than 32 MiB.
    """
    if event != "start_map" and event != "start_array":
        return _number(value) if type(value) is Decimal else value
    top: Any = {} if event == "start_map" else []
    above: list[tuple[Any, str]] = []
    key = ""
    file.item_from = file.position
    for event, value in stream:
        if event == "map_key":
            key = value
            continue
        if event == "end_map" or event == "end_array":
            if not above:
                break
            top, key = above.pop()
            continue
        inner: Any = None
        if event == "start_map" or event == "start_array":
            value = inner = {} if event == "start_map" else []
        elif type(value) is Decimal:
            value = _number(value)
        if type(top) is dict:
            top[key] = value
        else:
            top.append(value)
        if inner is not None:
            above.append((top, key))
            _check_depth(len(above), file)
            top = inner
    file.item_from = None
    return top


def skip(stream: Events, event: str, file: SourceFile) -> None:
    """Pass over the value that begins with `event`, however large it is."""
    depth = 0
    while True:
        if event == "start_map" or event == "start_array":
            depth += 1
            _check_depth(depth, file)
        elif event == "end_map" or event == "end_array":
            depth -= 1
        if depth == 0:
            return
        event, _ = next(stream)


def _check_depth(depth: int, file: SourceFile) -> None:
    if depth >= MAX_DEPTH:
        problem = f"nested deeper than {MAX_DEPTH} levels near byte {file.position:,}"
        raise file.error(problem + file.after())


def _number(value: Decimal) -> float | str:
    """Return a float, or the digits of a number beyond floats."""
    number = float(value)
    return str(value) if math.isinf(number) else number


def _unmarked(batch: list[Event]) -> Events:
    for name, value in batch:
        yield name, value.replace(_MARK, "\ud800") if type(value) is str else value


class Parser:
    """An ijson parser that is fed bytes; its events appear in `batch`."""

    def __init__(self) -> None:
        self.batch: Any = ijson.sendable_list()
        self._parser = ijson.basic_parse_coro(self.batch)

    def feed(self, chunk: bytes) -> Exception | None:
        """Parse some more bytes; return what is wrong with them."""
        try:
            self._parser.send(chunk)
        except (ijson.JSONError, ValueError, ArithmeticError) as error:
            return error
        except SystemError as error:
            # A number that Python cannot hold (over 4,300 digits): the C backend of ijson 3.6
            # leaves an event with a null pointer behind, which must not be touched.
            del self.batch[-1]
            return error.__cause__ if isinstance(error.__cause__, Exception) else error
        return None

    def finish(self) -> Exception | None:
        """Tell the parser that the text has ended; return what it still waits for."""
        try:
            self._parser.close()
        except (ijson.JSONError, ValueError, ArithmeticError, SystemError) as error:
            return error
        return None


class _Chunks:
    r"""The chunks of a file, with two kinds of escapes made fit for the parser.

    Telegram Desktop writes control characters as `\x1F`, which is not JSON: `\u001F` is meant
    (export_output_json.cpp, SerializeString). A lone surrogate is marked, so that the message
    with it can be refused; `marked` tells that there was one.
    """

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self.marked = False

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.raw():
            yield self.mend(chunk)

    def raw(self) -> bytes:
        """Return the next bytes, ending outside of any escape."""
        chunk = self._file.read(CHUNK)
        while b"\\" in chunk[-12:] and (more := self._file.read(64)):
            chunk += more
        return chunk

    def mend(self, chunk: bytes) -> bytes:
        if b"\\x" in chunk or b"\\ud" in chunk or b"\\uD" in chunk:
            return _ESCAPE.sub(self._mend, chunk)
        return chunk

    def _mend(self, match: re.Match[bytes]) -> bytes:
        if match[1]:
            return b"\\u00" + match[1]
        if match[2]:
            self.marked = True
            return b"\\ufdd0"
        return match[0]


def _locate(file: SourceFile) -> int:
    """Return the byte of the first syntax error, by parsing again from the start.

    The C parser does not tell; only a file that is refused anyway pays for this.
    """
    with file.reopen() as again:
        chunks = _Chunks(again)
        parser = Parser()
        begin = 0
        while chunk := chunks.raw():
            mended = chunks.mend(chunk)
            if begin + len(chunk) < file.position:
                parser.feed(mended)
            else:
                grown = len(mended) - len(chunk)
                for index in range(len(mended)):
                    if parser.feed(mended[index : index + 1]):
                        parser.finish()
                        return max(begin + index - grown, begin)
            parser.batch.clear()
            begin += len(chunk)
    return file.position


def _first_line(error: Exception) -> str:
    said = error.args[0] if error.args else ""  # bytes, from ijson's C backend
    text = said.decode("utf-8", "backslashreplace") if isinstance(said, bytes) else str(error)
    line = text.partition("\n")[0]
    return line if len(line) < 120 else f"{line[:117]}..."
