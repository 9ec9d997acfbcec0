"""Readers of changes and the writers beside them: what the tests of `messages.changes` share."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import attrs
from sqlalchemy import text

from telegram_hybrid import Hybrid, Message, MessageChange
from telegram_hybrid.testing.factories import make_message as made

A, B, C = -1001, -1002, -1003


def make_message(message_id: int = 1, **fields: Any) -> Message:
    return made(message_id=message_id, **fields)


def run(hybrid: Hybrid, statement: str, **values: Any) -> Any:
    schema = hybrid.settings.database_schema
    with hybrid.engine.begin() as connection:
        found = connection.execute(text(statement.replace("{s}", schema)), values)
        return found.all() if found.returns_rows else None


def edited(message: Message, content: str, minutes: int) -> Message:
    return attrs.evolve(
        message, text=content, edited_at=message.sent_at + timedelta(minutes=minutes)
    )


def ids(changes: Any) -> list[tuple[int, int]]:
    return [tuple(each.key) for each in changes]


def everything(hybrid: Hybrid, cursor: str | None = None, **options: Any) -> list[MessageChange]:
    """All changes behind a cursor, page by page."""
    found: list[MessageChange] = []
    while True:
        page = hybrid.messages.changes(cursor, **options)
        assert bool(page) or not page.more
        found += page
        if not page.more:
            return found
        cursor = page.cursor


def by_channel(changes: list[MessageChange]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for each in changes:
        found[each.key.channel_id].append(each.version)
    return found


def write(hybrid: Hybrid, seed: int) -> None:
    """Arrivals, edits and deletions of few messages, in channels of all and in one of its own."""
    draw = random.Random(seed)
    for step in range(20):
        messages = [
            edited(make_message(draw.randrange(12), channel_id=each), f"{seed}/{step}", step)
            for each in sorted(draw.sample(range(-2006, -2000), 2))
        ]
        if step % 2:
            with hybrid.transaction() as tx:  # the first version is drawn long before the commit
                tx.messages.save(messages[0])
                tx.messages.save(make_message(step, channel_id=-3000 - seed))
        else:
            hybrid.messages.save_many(messages)
        if step % 5 == 0:
            hybrid.messages.delete(*messages[0].key)


def poll(hybrid: Hybrid, writing: threading.Event, limit: int) -> list[MessageChange]:
    """Poll while others write, and then to the end."""
    found: list[MessageChange] = []
    cursor = None
    while True:
        last = not writing.is_set()
        page = hybrid.messages.changes(cursor, limit=limit)
        found += page
        cursor = page.cursor
        if last and not page.more:
            return found


def by_channel_of(wrote: list[tuple[int, int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for channel_id, version in wrote:
        found[channel_id].append(version)
    return found


def fresh_ids(hybrid: Hybrid) -> Iterator[int]:
    ((highest,),) = run(hybrid, "SELECT coalesce(max(message_id), 0) FROM {s}.message_keys")
    return iter(range(highest + 1, highest + 1000))


def begun(hybrid: Hybrid, message: Message) -> Any:
    """Save in a transaction that stays open; return what commits it and tells what it wrote."""
    saved, go = threading.Event(), threading.Event()
    wrote: list[tuple[int, int]] = []

    def write() -> None:
        with hybrid.transaction() as tx:
            wrote.append((message.channel_id, tx.messages.save(message).version))
            saved.set()
            assert go.wait(30)

    thread = threading.Thread(target=write)
    thread.start()
    assert saved.wait(30)

    def finish() -> list[tuple[int, int]]:
        go.set()
        thread.join(30)
        return wrote

    return finish
