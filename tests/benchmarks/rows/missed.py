"""get-miss: a message that is not cached, read from the database and cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import attrs
import psycopg
from redis import Redis

from benchmarks import caches
from benchmarks.benchmark import Aim, Benchmark, Contender, Operation, Plan, Role
from benchmarks.posts import CHANNEL, posts
from benchmarks.recording import Row, recording, replay, statements
from benchmarks.stand import Stand
from telegram_hybrid.hybrid import Hybrid
from telegram_hybrid.model import Entity, Media, Message

_STORED = posts(500)
_BY_ID = {each.message_id: each for each in _STORED}


@attrs.frozen
class _Stored:
    """The library with everything stored, and plain clients."""

    stand: Stand
    hybrid: Hybrid
    redis: Redis
    psycopg: psycopg.Connection[Any]

    def forgotten(self, key: str, *beside: str) -> Callable[[int], Sequence[int]]:
        """Inputs whose messages nobody has cached any more: `key` with the id at its end."""
        random = Random(1)

        def inputs(calls: int) -> list[int]:
            ids = random.sample(list(_BY_ID), calls)
            names = [f"{key}{number}{more}" for number in ids for more in ("", *beside)]
            self.redis.delete(*names)
            return ids

        return inputs

    def forgotten_of_ours(self) -> Callable[[int], Sequence[int]]:
        """The same for the library's own keys."""
        prefix = self.hybrid.settings.redis_prefix
        return self.forgotten(f"{prefix}:msg:{{{CHANNEL}}}:", ":lease", ":tombstone")


@contextmanager
def _stored(stand: Stand) -> Iterator[_Stored]:
    with (
        stand.hybrid("bench_missed") as hybrid,
        stand.redis() as client,
        stand.psycopg(prepared=False) as connection,
    ):
        hybrid.messages.save_many(_STORED)
        yield _Stored(stand, hybrid, client, connection)


@contextmanager
def _get(at: _Stored) -> Iterator[Operation]:
    messages, inputs = at.hybrid.messages, at.forgotten_of_ours()

    def call(number: int) -> Message | None:
        return messages.get(CHANNEL, number)

    yield Operation(call=call, inputs=inputs)
    _prove_filled(at, call, inputs)


@contextmanager
def _by_hand(at: _Stored) -> Iterator[Operation]:
    """What the library sends for each message, heard once and sent again; decoding included."""
    inputs, sent = at.forgotten_of_ours(), {}
    for number in _BY_ID:
        at.redis.delete(*at.redis.keys(f"{at.hybrid.settings.redis_prefix}:msg:*") or ["none"])
        with recording() as steps:
            at.hybrid.messages.get(CHANNEL, number)
        sent[number] = list(steps)

    def call(number: int) -> Message:
        message = _message(replay(sent[number], at.redis, at.psycopg))
        message.to_json()  # the value that the fill holds was encoded when it was heard
        return message

    yield Operation(call=call, inputs=inputs)
    _prove_filled(at, call, inputs)


def _message(results: list[tuple[Sequence[str], list[Row]]]) -> Message:
    (names, row) = next((names, rows[0]) for names, rows in results if "metadata" in names)
    fields = dict(zip(names, row, strict=True))
    for guard in ("as_of", "quiet"):
        fields.pop(guard, None)
    fields["entities"] = tuple(Entity(**each) for each in fields["entities"])
    fields["media"] = tuple(Media(**each) for each in fields["media"])
    return Message(**fields)


def _prove_filled(at: _Stored, call: Callable[[int], Any], inputs: Any) -> None:
    """A contender whose fills were refused did less than it says."""
    (number,) = inputs(1)
    call(number)
    if not at.redis.exists(f"{at.hybrid.settings.redis_prefix}:msg:{{{CHANNEL}}}:{number}"):
        raise RuntimeError("what was loaded was not cached")


@contextmanager
def _dogpile(at: _Stored) -> Iterator[Operation]:
    """get_or_create under the lock in Redis, loading by the same statement, prepared."""
    region = caches.region(
        at.stand, "dogpile", distributed_lock=True, thread_local_lock=False, lock_timeout=10
    )
    with recording() as steps:
        at.hybrid.messages.get(CHANNEL, at.forgotten_of_ours()(1)[0])
    read = statements(steps)[-1].text

    with at.stand.psycopg() as connection:

        def load(number: int) -> Message:
            told = {"channel_id": CHANNEL, "message_ids": [number], "prefix": None}
            cursor = connection.execute(read, told)
            names = [column.name for column in cursor.description or ()]
            return _message([(names, cursor.fetchall())])

        def call(number: int) -> Message:
            found: Message = region.get_or_create(str(number), load, creator_args=((number,), {}))
            return found

        yield Operation(call=call, inputs=at.forgotten("dogpile:"))


GET_MISS = Benchmark(
    id="get-miss",
    what="one message that is not cached: lease, load, fill",
    around=_stored,
    contenders=(
        Contender("messages.get", Role.OURS, _get),
        Contender(
            "the same commands by hand",
            Role.LIMIT,
            _by_hand,
            needs=("redis", "hiredis", "psycopg", "psycopg-binary"),
        ),
        Contender(
            "dogpile.cache, distributed lock",
            Role.ALTERNATIVE,
            _dogpile,
            needs=("dogpile.cache", "redis", "hiredis", "psycopg", "psycopg-binary"),
        ),
    ),
    plan=Plan(rounds=40, calls=50, warmup=100),
    quick=Plan(rounds=15, calls=20, warmup=20),
    aim=Aim(limit=1.3),
    expected=_BY_ID.get,
)

ROWS = (GET_MISS,)
