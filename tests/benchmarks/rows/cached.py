"""Reads that the cache answers: get-hit, get-many-hit, latest-hit, seen."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from random import Random
from typing import Any

import attrs
import msgspec
import psycopg
from redis import Redis

from benchmarks import caches
from benchmarks.benchmark import Aim, Benchmark, Contender, Operation, Plan, Role
from benchmarks.posts import CHANNEL, posts
from benchmarks.stand import Stand
from telegram_hybrid.hybrid import Hybrid
from telegram_hybrid.model import Message

_STORED = posts(1_000)
_BY_ID = {each.message_id: each for each in _STORED}
_BY_KEY = {str(each.message_id): each for each in _STORED}
_PAGE = 100
_DRIVER = ("redis", "hiredis", "msgspec")
_PSYCOPG = ("psycopg", "psycopg-binary")


class _One(msgspec.Struct):
    """What the limit needs of a cached value, whatever else is in it."""

    message: Message


class _Many(msgspec.Struct):
    messages: list[Message]


_one = msgspec.json.Decoder(_One).decode
_many = msgspec.json.Decoder(_Many).decode


@attrs.frozen
class _Filled:
    """The library with everything stored and cached, and the same posts by plain clients."""

    stand: Stand
    hybrid: Hybrid
    redis: Redis
    psycopg: psycopg.Connection[Any]

    @property
    def prefix(self) -> str:
        return self.hybrid.settings.redis_prefix

    @property
    def schema(self) -> str:
        return self.hybrid.settings.database_schema


@contextmanager
def _filled(stand: Stand) -> Iterator[_Filled]:
    with (
        stand.hybrid("bench_cached") as hybrid,
        stand.redis() as client,
        stand.psycopg() as connection,
    ):
        hybrid.messages.save_many(_STORED)
        for _ in range(2):
            hybrid.messages.get_many(CHANNEL, _BY_ID)
            hybrid.messages.latest(CHANNEL, limit=_PAGE)
            hybrid.messages.seen(CHANNEL, _BY_ID)
        yield _Filled(stand, hybrid, client, connection)


Inputs = Callable[[int], Sequence[Any]]
Opener = Callable[[_Filled], AbstractContextManager[Operation]]


def _contender(
    make: Callable[[_Filled], Callable[[Any], Any]], inputs: Callable[[], Inputs]
) -> Opener:
    """A contender that needs nothing beyond what is there."""

    @contextmanager
    def opened(at: _Filled) -> Iterator[Operation]:
        yield Operation(call=make(at), inputs=inputs())

    return opened


def _cache(open_it: Any, *, inputs: Callable[[], Inputs], many: bool) -> Opener:
    """One of the other caches, asked by strings."""

    @contextmanager
    def opened(at: _Filled) -> Iterator[Operation]:
        with open_it(at.stand, _BY_KEY, many=many) as operation:
            yield attrs.evolve(operation, inputs=inputs())

    return opened


def _ids() -> Inputs:
    random = Random(1)
    return lambda calls: random.choices(list(_BY_ID), k=calls)


def _keys() -> Inputs:
    ids = _ids()
    return lambda calls: [str(each) for each in ids(calls)]


def _pages() -> Inputs:
    random = Random(2)
    return lambda calls: [random.sample(list(_BY_ID), _PAGE) for _ in range(calls)]


def _key_pages() -> Inputs:
    pages = _pages()
    return lambda calls: [[str(each) for each in page] for page in pages(calls)]


def _nothing() -> Inputs:
    return lambda calls: [None] * calls


# get-hit


def _get(at: _Filled) -> Callable[[int], Message | None]:
    return partial(at.hybrid.messages.get, CHANNEL)


def _get_by_hand(at: _Filled) -> Callable[[int], Message]:
    head, get = f"{at.prefix}:msg:{{{CHANNEL}}}:", at.redis.get
    return lambda number: _one(get(f"{head}{number}")).message


@contextmanager
def _get_pickled(at: _Filled) -> Iterator[Operation]:
    _fill_pickled(at.redis)
    get = at.redis.get
    yield Operation(call=lambda key: pickle.loads(get(f"pickled:{key}")), inputs=_keys())


def _fill_pickled(client: Redis) -> None:
    client.mset({f"pickled:{key}": pickle.dumps(each, 5) for key, each in _BY_KEY.items()})


def _one_expected(given: int | str) -> Message:
    return _BY_ID[int(given)]


# get-many-hit


def _get_many(at: _Filled) -> Callable[[list[int]], list[Message]]:
    get_many = at.hybrid.messages.get_many
    return lambda ids: list(get_many(CHANNEL, ids).values())


def _get_many_by_hand(at: _Filled) -> Callable[[list[int]], list[Message]]:
    head, mget = f"{at.prefix}:msg:{{{CHANNEL}}}:", at.redis.mget

    def call(ids: list[int]) -> list[Message]:
        return [_one(data).message for data in mget([f"{head}{number}" for number in ids])]

    return call


@contextmanager
def _get_many_pickled(at: _Filled) -> Iterator[Operation]:
    _fill_pickled(at.redis)
    mget = at.redis.mget

    def call(keys: list[str]) -> list[Message]:
        return [pickle.loads(data) for data in mget([f"pickled:{key}" for key in keys])]

    yield Operation(call=call, inputs=_key_pages())


def _page_expected(given: Sequence[int | str]) -> list[Message]:
    return [_BY_ID[int(each)] for each in given]


# latest-hit


def _latest(at: _Filled) -> Callable[[None], list[Message]]:
    return lambda _: at.hybrid.messages.latest(CHANNEL, limit=_PAGE)


def _latest_by_hand(at: _Filled) -> Callable[[None], list[Message]]:
    """A value with just what is asked for: the library's window may hold more."""
    newest = b",".join(each.to_json() for each in _latest_expected(None))
    at.redis.set("packed", b'{"messages":[%b]}' % newest)
    get = at.redis.get
    return lambda _: _many(get("packed")).messages


def _latest_from_zset(at: _Filled) -> Callable[[None], list[Message]]:
    head = "zset:"
    at.redis.zadd(f"{head}recent", {key: int(key) for key in _BY_KEY})
    at.redis.mset({f"{head}{key}": caches.encode(each) for key, each in _BY_KEY.items()})
    newest, mget, decode = at.redis.zrevrange, at.redis.mget, caches.decode

    def call(_: None) -> list[Message]:
        keys = [head + key.decode() for key in newest(f"{head}recent", 0, _PAGE - 1)]
        return [decode(data) for data in mget(keys)]

    return call


def _latest_expected(_: None) -> list[Message]:
    return _STORED[: -_PAGE - 1 : -1]


# seen


def _seen(at: _Filled) -> Callable[[list[int]], set[int]]:
    return partial(at.hybrid.messages.seen, CHANNEL)


def _seen_by_hand(at: _Filled) -> Callable[[list[int]], set[int]]:
    head, mget = f"{at.prefix}:dedup:{{{CHANNEL}}}:", at.redis.mget

    def call(ids: list[int]) -> set[int]:
        flags = mget([f"{head}{number}" for number in ids])
        return {number for number, flag in zip(ids, flags, strict=True) if flag is not None}

    return call


def _seen_by_sql(at: _Filled) -> Callable[[list[int]], set[int]]:
    execute = at.psycopg.execute
    query = f"""SELECT id FROM unnest(%s::bigint[]) AS asked (id) WHERE EXISTS (
        SELECT FROM {at.schema}.message_keys WHERE channel_id = {CHANNEL} AND message_id = id)"""
    return lambda ids: {number for (number,) in execute(query, [ids], prepare=True)}


def _asked(count: int) -> Callable[[], Inputs]:
    """So many of the stored ids, in any order."""

    def inputs() -> Inputs:
        random = Random(3)
        return lambda calls: [random.sample(list(_BY_ID), count) for _ in range(calls)]

    return inputs


def _seen_row(count: int, plan: Plan, quick: Plan) -> Benchmark:
    return Benchmark(
        id=f"seen-{count}",
        what=f"which of {count:,} ids are stored; all are",
        around=_filled,
        contenders=(
            Contender("messages.seen", Role.OURS, _contender(_seen, _asked(count))),
            Contender(
                "redis-py MGET",
                Role.LIMIT,
                _contender(_seen_by_hand, _asked(count)),
                needs=("redis", "hiredis"),
            ),
            Contender(
                "SQL EXISTS by psycopg",
                Role.ALTERNATIVE,
                _contender(_seen_by_sql, _asked(count)),
                needs=_PSYCOPG,
            ),
        ),
        plan=plan,
        quick=quick,
        aim=Aim(limit=1.25),
        expected=set,
    )


GET_HIT = Benchmark(
    id="get-hit",
    what="one cached message as a model value",
    around=_filled,
    contenders=(
        Contender("messages.get", Role.OURS, _contender(_get, _ids)),
        Contender(
            "redis-py GET + msgspec", Role.LIMIT, _contender(_get_by_hand, _ids), needs=_DRIVER
        ),
        Contender("redis-py + pickle", Role.ALTERNATIVE, _get_pickled, needs=("redis", "hiredis")),
        *(
            Contender(name, Role.ALTERNATIVE, _cache(each, inputs=_keys, many=False), needs=needs)
            for name, each, needs in caches.ALL
        ),
    ),
    plan=Plan(rounds=40, calls=200, warmup=400),
    quick=Plan(rounds=15, calls=100, warmup=100),
    aim=Aim(limit=1.25, alternatives=1.0),
    expected=_one_expected,
)

GET_MANY_HIT = Benchmark(
    id="get-many-hit",
    what=f"{_PAGE} cached messages",
    around=_filled,
    contenders=(
        Contender("messages.get_many", Role.OURS, _contender(_get_many, _pages)),
        Contender(
            "redis-py MGET + msgspec",
            Role.LIMIT,
            _contender(_get_many_by_hand, _pages),
            needs=_DRIVER,
        ),
        Contender(
            "redis-py + pickle", Role.ALTERNATIVE, _get_many_pickled, needs=("redis", "hiredis")
        ),
        *(
            Contender(
                name, Role.ALTERNATIVE, _cache(each, inputs=_key_pages, many=True), needs=needs
            )
            for name, each, needs in caches.ALL
        ),
    ),
    plan=Plan(rounds=40, calls=20, warmup=40),
    quick=Plan(rounds=15, calls=10, warmup=10),
    aim=Aim(limit=1.25, alternatives=1.0),
    expected=_page_expected,
)

LATEST_HIT = Benchmark(
    id="latest-hit",
    what=f"the {_PAGE} newest messages of a channel, cached",
    around=_filled,
    contenders=(
        Contender("messages.latest", Role.OURS, _contender(_latest, _nothing)),
        Contender(
            "GET of one packed value + msgspec",
            Role.LIMIT,
            _contender(_latest_by_hand, _nothing),
            needs=_DRIVER,
        ),
        Contender(
            "ZSET + MGET + msgspec",
            Role.ALTERNATIVE,
            _contender(_latest_from_zset, _nothing),
            needs=_DRIVER,
        ),
    ),
    plan=Plan(rounds=40, calls=20, warmup=40),
    quick=Plan(rounds=15, calls=10, warmup=10),
    aim=Aim(limit=1.5),
    expected=_latest_expected,
)

ROWS = (
    GET_HIT,
    GET_MANY_HIT,
    LATEST_HIT,
    _seen_row(1, Plan(40, 200, 400), Plan(15, 100, 100)),
    _seen_row(1_000, Plan(40, 10, 20), Plan(15, 5, 5)),
)
