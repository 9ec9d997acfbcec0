"""A Telegram Desktop export as a source: one chat, or a whole account, walked in one pass.

    {"name", "type", "id", "messages": [...]}                     one chat
    {"chats": {"list": [chat, ...]}, "left_chats": {...}, ...}    an account ("chats" may be a list)

Keys come in any order. Only if a chat's `id` or `type` follows its messages, the file is passed
over a second time, for the headers alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import tzinfo
from typing import Any

import attrs

from telegram_hybrid.errors import InvalidFile, InvalidInput
from telegram_hybrid.model import Channel, Message
from telegram_hybrid.sources import peers
from telegram_hybrid.sources.desktop_message import Chat, to_message
from telegram_hybrid.sources.events import Events, build, events, skip
from telegram_hybrid.sources.files import SourceFile
from telegram_hybrid.sources.report import Report, Skipped

#: A message's place, its raw object, and its chat or why the chat is refused.
Item = tuple[str, Any, Chat | InvalidFile]

_HEADER = ("id", "type", "name")
_LISTS = ("chats", "left_chats")


@attrs.define(slots=True)
class Header:
    """What is known of a chat of the file so far: its header keys, and the Chat made of them."""

    keys: dict[str, Any] = attrs.field(factory=dict)
    chat: Chat | InvalidFile | None = None


class DesktopExport:
    """The messages of one export file, raw, with their chats."""

    kind = "desktop_export"

    def __init__(self, file: SourceFile, *, timezone: tzinfo, report: Report) -> None:
        self.file = file
        self._timezone = timezone
        self._report = report
        self._chats: dict[int, Chat] = {}
        self._headers: dict[str, dict[str, Any]] | None = None

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The chats met so far."""
        return tuple(chat.channel for chat in self._chats.values())

    def convert(self, raw: Any, chat: Chat | InvalidFile) -> Message | Skipped:
        """Turn one raw message into a Message. Raises `InvalidInput`."""
        if isinstance(chat, InvalidFile):
            raise chat
        if not isinstance(raw, dict):
            raise InvalidInput("message", f"expected an object, got {type(raw).__name__}")
        return to_message(raw, chat, timezone=self._timezone, report=self._report)

    def items(self) -> Iterator[Item]:
        """Yield the messages in the order of the file. Raises `InvalidFile` where it breaks."""
        stream = events(self.file)
        event, _ = next(stream)
        if event != "start_map":
            raise self._no_export()
        header = Header()
        found = False
        for _, key in stream:
            if key is None:  # the end of the object
                break
            event, value = next(stream)
            if key == "messages":
                found = True
                yield from self._messages(stream, event, "", header)
            elif key in _LISTS and event in ("start_map", "start_array"):
                found = True
                yield from self._account(stream, event, key)
            else:
                self._other(stream, event, value, key, header)
        for _ in stream:  # whatever follows the document is an error, raised here
            pass
        if not found:
            raise self._no_export()
        self._finish("", header)

    def _account(self, stream: Events, event: str, key: str) -> Iterator[Item]:
        if event == "start_array":
            yield from self._chat_list(stream, key)
            return
        for _, inner in stream:
            if inner is None:
                return
            event, _ = next(stream)
            if inner == "list" and event == "start_array":
                yield from self._chat_list(stream, f"{key}.list")
            else:
                skip(stream, event, self.file)

    def _chat_list(self, stream: Events, place: str) -> Iterator[Item]:
        for index, (event, _) in enumerate(stream):
            if event == "end_array":
                return
            here = f"{place}[{index}]"
            if event != "start_map":
                raise self.file.error("expected an object", field="chat", place=here)
            header = Header()
            for _, key in stream:
                if key is None:
                    break
                event, value = next(stream)
                if key == "messages":
                    yield from self._messages(stream, event, here, header)
                else:
                    self._other(stream, event, value, key, header)
            self._finish(here, header)

    def _messages(self, stream: Events, event: str, place: str, header: Header) -> Iterator[Item]:
        if event != "start_array":
            raise self.file.error("expected a list", field="messages", place=place or None)
        prefix = f"{place}.messages" if place else "messages"
        for index, (event, value) in enumerate(stream):
            if event == "end_array":
                return
            raw = build(stream, event, value, self.file)
            if header.chat is None:
                header.chat = self._chat(place, header, raw if isinstance(raw, dict) else {})
            self.file.place = f"{prefix}[{index}]"
            yield self.file.place, raw, header.chat

    def _other(self, stream: Events, event: str, value: Any, key: str, header: Header) -> None:
        """Keep a header key; pass over anything else, counting whole sections as skipped."""
        if key in _HEADER:
            header.keys[key] = build(stream, event, value, self.file)
            return
        if event in ("start_map", "start_array"):
            self._report.skip(Skipped(f"section {key!r}, which holds no messages"))
        skip(stream, event, self.file)

    def _chat(self, place: str, header: Header, first: dict[str, Any]) -> Chat | InvalidFile:
        """Return the chat whose first message was just read, or its refusal."""
        keys = header.keys
        if "id" not in keys or "type" not in keys:
            keys = {**self._look_ahead(place), **keys}
        where = place or "the chat"
        if keys.get("id") is None:
            problem = "missing, so its messages have no channel"
            return self.file.error(problem, field="id", place=where)
        old = peers.has_old_ids(keys["id"], first)
        try:
            channel_id = peers.marked_chat(keys["id"], keys.get("type"), old=old)
            chat = Chat(channel_id, str(keys.get("type")), keys.get("name"))
            chat.channel  # noqa: B018  (checks the name)
        except InvalidInput as error:
            field = {"title": "name"}.get(error.field, error.field)
            return self.file.error(error.problem, field=field, place=where)
        return self._chats.setdefault(channel_id, chat)

    def _finish(self, place: str, header: Header) -> None:
        """Take in a name that came after the messages, and a chat without messages."""
        name = header.keys.get("name")
        if isinstance(header.chat, Chat):
            if header.chat.name is None and isinstance(name, str):
                header.chat.name = name
        elif header.chat is None and {"id", "type"} <= header.keys.keys():
            self._chat(place, header, {})

    def _look_ahead(self, place: str) -> dict[str, Any]:
        """Return the header keys of the chat at `place`, wherever in the file they are."""
        if self._headers is None:
            self._headers = {}
            with self.file.reopen() as again:
                try:
                    _collect(events(again), again, self._headers)
                except InvalidFile:
                    # The main pass meets the same break, after the messages before it.
                    if place not in self._headers:
                        raise
        return self._headers.get(place, {})

    def _no_export(self) -> InvalidFile:
        keys = "with " + " or ".join(("messages", *_LISTS))
        return self.file.error(f"is not a Telegram Desktop export ({keys}) nor Bot API updates")


def _collect(stream: Events, file: SourceFile, headers: dict[str, dict[str, Any]]) -> None:
    """Fill `headers` with the header keys of the file's chats, by place."""
    next(stream)
    for _, key in stream:
        if key is None:
            return
        event, value = next(stream)
        if key in _HEADER:
            headers.setdefault("", {})[key] = build(stream, event, value, file)
        elif key in _LISTS and event == "start_array":
            _collect_list(stream, file, headers, key)
        elif key in _LISTS and event == "start_map":
            for _, inner in stream:
                if inner is None:
                    break
                event, _ = next(stream)
                if inner == "list" and event == "start_array":
                    _collect_list(stream, file, headers, f"{key}.list")
                else:
                    skip(stream, event, file)
        else:
            skip(stream, event, file)


def _collect_list(
    stream: Events, file: SourceFile, headers: dict[str, dict[str, Any]], place: str
) -> None:
    for index, (event, _) in enumerate(stream):
        if event != "start_map":
            return
        header = headers.setdefault(f"{place}[{index}]", {})
        for _, key in stream:
            if key is None:
                break
            event, value = next(stream)
            if key in _HEADER:
                header[key] = build(stream, event, value, file)
            else:
                skip(stream, event, file)
