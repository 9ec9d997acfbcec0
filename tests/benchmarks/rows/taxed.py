"""Writer tax: what the outbox adds to a transaction that stores a message.

The floor shows what any outbox has to add: in the statement that inserts the message, one row with
its event, from plain values, and no channel head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import attrs
import psycopg

from benchmarks.benchmark import Aim, Benchmark, Bound, Contender, Operation, Plan, Role
from benchmarks.posts import post
from benchmarks.recording import Statement, elsewhere, recording, replay, statements
from benchmarks.stand import Stand
from telegram_hybrid.hybrid import Hybrid
from telegram_hybrid.model import Message
from telegram_hybrid.repositories.inserting import columns

_PSYCOPG = ("psycopg", "psycopg-binary")
_DAY = 1_440  # posts: one a minute
#: Transactions of each writer in a call, so that starting the threads counts for little.
_EACH = (5, 5, 1)
#: Below every channel that the writers write to, one each.
_FIRST_CHANNEL = -2000

#: What a message alone costs: its row, its key, and its channel's.
_MESSAGE = """
WITH registered AS (
    INSERT INTO {schema}.channels (channel_id) VALUES (%(channel_id)s) ON CONFLICT DO NOTHING
), keyed AS (
    INSERT INTO {schema}.message_keys (channel_id, message_id, sent_at)
    VALUES (%(channel_id)s, %(message_id)s, %(sent_at)s)
)"""
_INSERT = """
INSERT INTO {schema}.messages (
    channel_id, message_id, sent_at, version, source, message_type, text, caption, entities,
    edited_at, sender_id, sender_name, reply_to_id, thread_id, grouped_id, media_type, media,
    metadata, status)
VALUES (
    %(channel_id)s, %(message_id)s, %(sent_at)s, %(version)s, %(source)s, %(message_type)s,
    %(text)s, %(caption)s, %(entities)s, %(edited_at)s, %(sender_id)s, %(sender_name)s,
    %(reply_to_id)s, %(thread_id)s, %(grouped_id)s, %(media_type)s, %(media)s, %(metadata)s,
    'received')
"""
_BARE_EVENT = """
INSERT INTO {schema}.outbox (shard, event_id, type, channel_id, message_id, payload, schema_version)
VALUES (%(shard)s, %(event_id)s, %(type)s, %(channel_id)s, %(message_id)s, %(payload)s,
        %(payload_version)s)
"""

#: What becomes of the statements of a transaction.
Taxed = Callable[[list[Statement]], list[Statement]]
#: The transactions of every writer.
Load = list[list[list[Statement]]]


def _with_outbox(found: list[Statement]) -> list[Statement]:
    return found


def _insert_alone(schema: str, found: list[Statement]) -> list[Statement]:
    """With the plain insert of the message in place of what writes both."""
    return _instead(found, f"{_MESSAGE}{_INSERT}".format(schema=schema))


def _bare_event(schema: str, found: list[Statement]) -> list[Statement]:
    """With the least that tells of the message beside that."""
    both = f"{_MESSAGE}, inserted AS ({_INSERT}){_BARE_EVENT}"
    return _instead(found, both.format(schema=schema))


def _instead(found: list[Statement], statement: str) -> list[Statement]:
    (ours,) = (each for each in found if ".append_changes(" in each.text)
    payload = ours.values["payloads"]
    values = {
        **columns(Message.from_json(payload)),
        "payload": payload,
        "payload_version": ours.values["payload_version"],
        "event_id": ours.values["event_ids"].strip("{}"),
        "type": ours.values["types"].strip("{}"),
        "shard": ours.values["shards"].strip("{}"),
    }
    return [
        attrs.evolve(each, text=statement, values=values) if each is ours else each
        for each in found
    ]


def _notifying(found: list[Statement]) -> list[Statement]:
    return [*found, Statement("NOTIFY bench_tax", None)]


def _opened(writers: int, schema: str, taxed: Taxed) -> Any:
    @contextmanager
    def opened(stand: Stand) -> Iterator[Operation]:
        with ExitStack() as stack:
            heard = stack.enter_context(stand.hybrid(f"heard_{schema}"))
            made = stack.enter_context(stand.hybrid(schema))
            for hybrid in (heard, made):
                hybrid.messages.save_many(post(n, -1) for n in range(1, 150_000, _DAY))
            connections = [
                stack.enter_context(stand.psycopg(prepared=False)) for _ in range(writers)
            ]
            pool = stack.enter_context(ThreadPoolExecutor(writers))
            each = stand.sized(_EACH)
            last = 0

            def inputs(calls: int) -> list[Load]:
                nonlocal last
                last += calls * each
                first = last - calls * each + 1
                return [
                    [
                        [
                            taxed(_heard(heard, schema, first + call * each + n, writer))
                            for n in range(each)
                        ]
                        for writer in range(writers)
                    ]
                    for call in range(calls)
                ]

            yield Operation(
                call=lambda load: list(pool.map(_write, connections, load)),
                inputs=inputs,
                per=writers * each,
            )
            with stand.psycopg() as connection:
                (found,) = connection.execute(
                    f"SELECT count(*) FROM {schema}.messages WHERE channel_id < %s",
                    [_FIRST_CHANNEL + 1],
                ).fetchone() or (0,)
            if found != last * writers:
                raise RuntimeError(f"{found:,} of {last * writers:,} messages are stored")

    return opened


def _heard(heard: Hybrid, schema: str, number: int, writer: int) -> list[Statement]:
    """What the library says to save one message."""
    with recording() as steps:
        heard.messages.save(post(number, _FIRST_CHANNEL - writer))
    return elsewhere(statements(steps), f"heard_{schema}", schema)


def _write(connection: psycopg.Connection[Any], load: Sequence[Sequence[Statement]]) -> None:
    for each in load:
        with connection.transaction():
            replay(each, None, connection)


def _row(writers: int) -> Benchmark:
    opened = partial(_opened, writers)
    return Benchmark(
        id=f"writer-tax-{writers}",
        what=f"a transaction that stores a message, per transaction; writers at once: {writers}",
        contenders=(
            Contender(
                "with its event", Role.OURS, opened("bench_tax", _with_outbox), needs=_PSYCOPG
            ),
            Contender(
                "insert alone",
                Role.LIMIT,
                opened("bench_bare", partial(_insert_alone, "bench_bare")),
                needs=_PSYCOPG,
            ),
            Contender(
                "with a bare event",
                Role.FLOOR,
                opened("bench_event", partial(_bare_event, "bench_event")),
                needs=_PSYCOPG,
            ),
            Contender(
                "with its event and a NOTIFY",
                Role.ALTERNATIVE,
                opened("bench_notify", _notifying),
                needs=_PSYCOPG,
            ),
        ),
        plan=Plan(rounds=30 if writers == 1 else 20, calls=5, warmup=5),
        quick=Plan(rounds=5, calls=1, warmup=1),
        aim=Aim(limit=1.05, floors=1.05),
        bound=Bound(
            "with a bare event",
            "whatever is announced reliably is written down in the same transaction, and this is"
            " the least of it: one row, no order kept. Our share is what we take more than that",
        ),
    )


ROWS = tuple(map(_row, (1, 8, 16)))
