"""The crowd: processes that save what they are told of, all at once; and what they left behind.

Usage: writers.py JSON, with the keys settings, seed and messages. Prints a list of reports.
The processes are forked when the stories are made, so that they begin together.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import attrs
import msgspec
from sqlalchemy import text

from crowd.judge import Announced, Kept, Report, Row, Store
from crowd.plan import WRITERS, Fate, Story, deliveries, stories
from telegram_hybrid import Hybrid, Message, SaveCounts, Settings, Status, connect
from telegram_hybrid.model import MessageKey


def crowd(settings: Settings, *, seed: int, messages: int, seconds: float) -> list[Report]:
    """Have all writers save at once, in a program of their own, and return what each reports."""
    options = {"settings": attrs.asdict(settings), "seed": seed, "messages": messages}
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(options)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=seconds,
        check=True,
    )
    return [Report(**each) for each in json.loads(done.stdout)]


def write(hybrid: Hybrid, told: Sequence[Story], seed: int, writer: int) -> Report:
    """Save one writer's share, in batches of several kinds; delete and mark what is to be so."""
    rng = random.Random(f"{seed}/{writer}/calls")
    fates = {story.key: story.fate for story in told}
    counts, deleted, errors = SaveCounts(), 0, []
    for batch in deliveries(told, seed, writer):
        try:
            counts += rng.choice((_stream, _stream, _transaction, _one_by_one))(hybrid, batch)
            for key in {message.key for message in batch}:
                if fates[key] is Fate.DELETED:
                    deleted += hybrid.messages.delete(*key, reason="spam")
                elif fates[key] is Fate.PUBLISHED:
                    hybrid.messages.mark(*key, Status.PUBLISHED)
        except Exception as error:  # noqa: BLE001  (the judge wants to know of every one)
            errors.append(repr(error))
    return Report(counts.inserted, counts.edited, deleted, errors)


def _stream(hybrid: Hybrid, batch: Sequence[Message]) -> SaveCounts:
    return hybrid.messages.save_many(batch)


def _transaction(hybrid: Hybrid, batch: Sequence[Message]) -> SaveCounts:
    with hybrid.transaction() as tx:
        return SaveCounts.of(tx.messages.save_batch(batch))


def _one_by_one(hybrid: Hybrid, batch: Sequence[Message]) -> SaveCounts:
    few = [hybrid.messages.save(each) for each in batch[:20]]
    return SaveCounts.of(few) + hybrid.messages.save_many(batch[20:])


def stored(hybrid: Hybrid) -> Store:
    """Read everything back from the tables themselves."""
    with hybrid.engine.connect() as connection:

        def rows(statement: str) -> Any:
            schema = hybrid.settings.database_schema
            return connection.execute(text(statement.replace("{s}", schema)))

        keys = rows("SELECT channel_id, message_id, sent_at FROM {s}.message_keys")
        messages = rows(
            "SELECT channel_id, message_id, sent_at, version, text, caption, status"
            " FROM {s}.messages"
        )
        revisions = rows(
            "SELECT channel_id, message_id, text, caption, edited_at FROM {s}.message_revisions"
        )
        events = rows("SELECT type, payload::text FROM {s}.outbox ORDER BY id")
        return Store(
            {MessageKey(*key): sent_at for *key, sent_at in keys},
            [
                Row(MessageKey(channel, number), sent_at, version, (content, caption), status)
                for channel, number, sent_at, version, content, caption, status in messages
            ],
            [
                Kept(MessageKey(channel, number), (content, caption), edited_at)
                for channel, number, content, caption, edited_at in revisions
            ],
            [_announced(kind, Message.from_json(payload)) for kind, payload in events],
        )


def _announced(kind: str, message: Message) -> Announced:
    content = message.text, message.caption
    return Announced(message.key, kind, message.version, content, message.edited_at)


def _main(options: dict[str, Any]) -> None:
    told = stories(options["seed"], options["messages"])
    settings = Settings(**options["settings"])
    fork = multiprocessing.get_context("fork")
    start, reports = fork.Barrier(WRITERS), fork.SimpleQueue()

    def work(writer: int) -> None:
        with connect(settings) as hybrid:
            start.wait(60)
            reports.put(attrs.asdict(write(hybrid, told, options["seed"], writer)))

    processes = [fork.Process(target=work, args=(writer,)) for writer in range(WRITERS)]
    for process in processes:
        process.start()
    found = [reports.get() for _ in processes]
    for process in processes:
        process.join()
    sys.stdout.write(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
