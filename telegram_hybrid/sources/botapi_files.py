"""Files of Bot API updates as a source: one update a line, a list, or a getUpdates response."""

from __future__ import annotations

from collections.abc import Iterator
from reprlib import repr as shown
from typing import Any

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Channel, Message
from telegram_hybrid.sources.botapi import MESSAGE_KINDS, channel_of, from_update
from telegram_hybrid.sources.events import MAX_ITEM, Events, Parser, build, events, skip
from telegram_hybrid.sources.files import CHUNK, SourceFile
from telegram_hybrid.sources.jsontext import decode, json_object
from telegram_hybrid.sources.report import Skipped

#: A place, an update (a line's bytes, or a value), and the byte at which a line begins.
Item = tuple[str, Any, int]


def is_botapi(head: bytes) -> bool:
    """Tell from the first bytes of a file whether it holds Bot API updates."""
    parser = Parser()
    parser.feed(head)  # what is wrong, the reader will meet again and raise
    parser.finish()
    batch = parser.batch
    depth = 0
    level = 2 if batch and batch[0][0] == "start_array" else 1
    for event, value in batch:
        if event in ("start_map", "start_array"):
            depth += 1
        elif event in ("end_map", "end_array"):
            depth -= 1
        elif event == "map_key" and depth == level:
            if value == "update_id" or (value == "ok" and level == 1):
                return True
            if value in ("messages", "chats", "left_chats", "about"):
                return False
    return False


class BotApiFile:
    """The updates of one file, raw."""

    kind = "bot_api"

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self._channels: dict[int, Channel] = {}

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The chats met so far, as their last message described them."""
        return tuple(self._channels.values())

    def convert(self, raw: Any, offset: int) -> Message | Skipped:
        """Turn one update into a Message, or say why not. Raises `InvalidInput`."""
        update = decode("update", raw, offset=offset) if isinstance(raw, bytes) else raw
        result = from_update(json_object("update", update))
        if isinstance(result, Message):
            content = next(value for key, value in update.items() if key in MESSAGE_KINDS)
            self._channels[result.channel_id] = channel_of(content["chat"])
        return result

    def items(self) -> Iterator[Item]:
        """Yield the updates in the order of the file. Raises `InvalidFile` where it breaks."""
        return self._lines() if _begins_with_a_line(self.file) else self._document()

    def _lines(self) -> Iterator[Item]:
        for number, (offset, line) in enumerate(_split(self.file), 1):
            if line.strip():
                if not line.endswith(b"\n"):
                    self._check_end(line, offset)
                self.file.place = f"line {number}"
                yield self.file.place, line, offset

    def _check_end(self, line: bytes, offset: int) -> None:
        """Refuse a last line that was cut short."""
        try:
            decode("update", line, offset=offset)
        except InvalidInput as error:
            byte = self.file.position
            raise self.file.error(f"truncated at byte {byte:,}{self.file.after()}") from error

    def _document(self) -> Iterator[Item]:
        stream = events(self.file)
        event, _ = next(stream)
        if event == "start_array":
            yield from self._list(stream, "")
        else:
            yield from self._response(stream)
        for _ in stream:  # whatever follows the document is an error, raised here
            pass

    def _list(self, stream: Events, prefix: str) -> Iterator[Item]:
        for index, (event, value) in enumerate(stream):
            if event == "end_array":
                return
            raw = build(stream, event, value, self.file)
            self.file.place = f"{prefix}[{index}]"
            yield self.file.place, raw, 0

    def _response(self, stream: Events) -> Iterator[Item]:
        """Yield the updates of {"ok": true, "result": [...]}, or the object as one update."""
        update: dict[str, Any] = {}
        listed = False
        for _, key in stream:
            if key is None:
                break
            event, value = next(stream)
            if key == "result" and event == "start_array":
                listed = True
                yield from self._list(stream, "result")
            elif key in ("ok", "result"):
                skip(stream, event, self.file)
            else:
                update[key] = build(stream, event, value, self.file)
        if "update_id" in update:
            yield "update", update, 0
        elif not listed:
            reason = f": {shown(update['description'])}" if "description" in update else ""
            raise self.file.error(f"holds no Bot API updates{reason}")


def _begins_with_a_line(file: SourceFile) -> bool:
    """Tell whether the first line is an update of its own, rather than part of a document."""
    line, newline, _ = file.head.lstrip().partition(b"\n")
    if not line.startswith(b"{"):
        return False
    if not newline:  # one long line: an update, or a whole response
        return b'"update_id"' in line[:4096] and not line.lstrip(b"{ ").startswith(b'"ok"')
    try:
        return "update_id" in decode("update", line)
    except InvalidInput:
        return file.path.suffix in (".jsonl", ".ndjson")  # a broken first line


def _split(file: SourceFile) -> Iterator[tuple[int, bytes]]:
    """Yield the lines with the byte at which each begins. Raises `InvalidFile` for endless ones."""
    pieces: list[bytes] = []
    offset = 0
    while chunk := file.read(CHUNK):
        *ends, last = chunk.split(b"\n")
        for end in ends:
            line = b"".join([*pieces, end, b"\n"])
            pieces.clear()
            yield offset, line
            offset += len(line)
        pieces.append(last)
        if file.position - offset > MAX_ITEM:
            raise file.error(f"a line of more than {MAX_ITEM:,} bytes{file.after()}")
    if rest := b"".join(pieces):
        yield offset, rest
