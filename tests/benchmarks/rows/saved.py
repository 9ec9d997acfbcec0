"""Writes: save and save-many, each message with its event, durable when the call returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Engine, create_engine, insert, make_url
from sqlalchemy.orm import Session

from benchmarks import orm
from benchmarks.benchmark import Aim, Benchmark, Bound, Contender, Operation, Plan, Role
from benchmarks.posts import CHANNEL, post, posts
from benchmarks.recording import (
    Commands,
    Statement,
    Step,
    elsewhere,
    recording,
    replay,
    send_commands,
)
from benchmarks.stand import Stand
from telegram_hybrid.hybrid import Hybrid
from telegram_hybrid.model import Message

_PSYCOPG = ("psycopg", "psycopg-binary")
_DRIVERS = (*_PSYCOPG, "redis", "hiredis")
_ORM = ("sqlalchemy", *_PSYCOPG, "msgspec")
#: Messages of one transaction: the library's own, and those of the alternatives.
_BATCH = 1_000
_DAY = 1_440  # posts: one a minute
_OTHER_CHANNEL = -1002

#: How many messages a call saves.
Size = Callable[[Stand], int]
Opener = Callable[[Stand], AbstractContextManager[Operation]]
#: Sends the steps of some transactions.
Send = Callable[[Sequence[Sequence[Step]]], None]
Over = Callable[[Stand], AbstractContextManager[Send]]
#: Is given a session, the models of message and event, and what to save.
Saving = Callable[[Session, Any, Any, Sequence[Message]], None]


def _one(_: Stand) -> int:
    return 1


def _many(stand: Stand) -> int:
    return stand.sized((5 * _BATCH, _BATCH, _BATCH))


def _fresh(count: int) -> Callable[[int], list[list[Message]]]:
    """Messages that nobody gave this contender before, in lists of `count`."""
    last = 0

    def inputs(calls: int) -> list[list[Message]]:
        nonlocal last
        given = [posts(count, first=last + 1 + n * count) for n in range(calls)]
        last += calls * count
        return given

    return inputs


def _proving(
    inputs: Callable[[int], Sequence[Any]], per: int, stored: Callable[[], int]
) -> Iterator[Callable[[int], Sequence[Any]]]:
    """Give `inputs`; afterwards, prove that all that was given is stored."""
    asked = 0

    def counting(calls: int) -> Sequence[Any]:
        nonlocal asked
        asked += calls * per
        return inputs(calls)

    yield counting
    if (found := stored()) != asked:
        raise RuntimeError(f"{found:,} of {asked:,} messages are stored")


def _count(stand: Stand, table: str) -> int:
    with stand.psycopg() as connection:
        row = connection.execute(
            f"SELECT count(*) FROM {table} WHERE channel_id = %s", [CHANNEL]
        ).fetchone()
    return int(row[0]) if row else 0


def _ours(size: Size) -> Opener:
    """`messages.save`, or `save_many`."""

    @contextmanager
    def opened(stand: Stand) -> Iterator[Operation]:
        count = size(stand)
        with stand.hybrid("bench_ours") as hybrid:
            _make_partitions(hybrid)
            save, save_many = hybrid.messages.save, hybrid.messages.save_many
            call = (lambda given: save(given[0])) if count == 1 else save_many
            stored = partial(_count, stand, "bench_ours.messages")
            for inputs in _proving(_fresh(count), count, stored):
                yield Operation(call=call, inputs=inputs, per=count)

    return opened


def _by_hand(size: Size, name: str, over: Over, *, cached: bool = False) -> Opener:
    """The library's own statements with their values, heard in one schema, sent to another.

    Turning messages into values was done when they were heard. `cached`: and its own commands to
    Redis, of which some must come before the commit and some behind it.
    """

    @contextmanager
    def opened(stand: Stand) -> Iterator[Operation]:
        count = size(stand)
        heard_in, sent_to = f"bench_heard_{name}", f"bench_by_{name}"
        with (
            stand.hybrid(heard_in, cached=cached) as heard,
            stand.hybrid(sent_to, cached=cached) as made,
            over(stand) as send,
        ):
            _make_partitions(heard)
            _make_partitions(made)
            fresh = _fresh(count)

            def inputs(calls: int) -> list[list[list[Step]]]:
                transactions = [_transactions(heard, given) for given in fresh(calls)]
                steps = [each for some in transactions for one in some for each in one]
                if cached != any(isinstance(each, Commands) for each in steps):
                    raise RuntimeError("what Redis is told was not heard, or was without it")
                return [
                    [elsewhere(each, heard_in, sent_to) for each in some] for some in transactions
                ]

            stored = partial(_count, stand, f"{sent_to}.messages")
            for proving in _proving(inputs, count, stored):
                yield Operation(call=send, inputs=proving, per=count)

    return opened


@contextmanager
def _drivers(stand: Stand) -> Iterator[Send]:
    """Nothing but psycopg and redis-py."""
    with stand.redis() as client, stand.psycopg(prepared=False) as connection:

        def send(transactions: Sequence[Sequence[Step]]) -> None:
            for steps in transactions:
                behind = _commits_at(steps)
                with connection.transaction():
                    replay(steps[:behind], client, connection)
                replay(steps[behind:], client, connection)

        yield send


@contextmanager
def _sqlalchemy(stand: Stand) -> Iterator[Send]:
    """SQLAlchemy's pool, transaction and errors around psycopg, and redis-py."""
    url = make_url(stand.database_url).set(drivername="postgresql+psycopg")
    engine = create_engine(url, connect_args={"prepare_threshold": None})

    with stand.redis() as client:

        def send(transactions: Sequence[Sequence[Step]]) -> None:
            for steps in transactions:
                behind = _commits_at(steps)
                with engine.begin() as connection:
                    for step in steps[:behind]:
                        if isinstance(step, Statement):
                            connection.exec_driver_sql(step.text, step.values).all()
                        else:
                            send_commands(client, step)
                for step in steps[behind:]:
                    send_commands(client, step)

        yield send
    engine.dispose()


def _commits_at(steps: Sequence[Step]) -> int:
    """Behind how many of them the commit comes: Redis is told once more after it."""
    return len(steps) - isinstance(steps[-1], Commands)


def _transactions(heard: Hybrid, given: Sequence[Message]) -> list[list[Step]]:
    """What the library says to save these, one list for each of its transactions."""
    transactions = []
    for at in range(0, len(given), _BATCH):
        with recording() as steps:
            heard.messages.save_many(given[at : at + _BATCH])
        # Not what a connection says that is just opened.
        transactions.append([each for each in steps if not _is_greeting(each)])
    return transactions


def _is_greeting(step: Step) -> bool:
    return isinstance(step, Commands) and not step.commands[0][0].startswith("EVAL")


def _make_partitions(hybrid: Hybrid) -> None:
    """Partitions are made once in months, not while others are measured."""
    hybrid.messages.save_many(post(n, _OTHER_CHANNEL) for n in range(1, 150_000, _DAY))


def _on_orm(schema: str, size: Size, save: Saving, *mixins: str) -> Opener:
    """One of those above SQLAlchemy."""

    @contextmanager
    def opened(stand: Stand) -> Iterator[Operation]:
        count = size(stand)
        model, event = orm.models(schema, *map(_named, mixins))
        with orm.tables(stand, schema, model) as engine:
            stored = partial(_count, stand, f"{schema}.messages")
            for inputs in _proving(_fresh(count), count, stored):
                call = partial(_in_batches, engine, model, event, save)
                yield Operation(call=call, inputs=inputs, per=count)

    return opened


def _named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)


def _in_batches(
    engine: Engine,
    model: Any,
    event: Any,
    save: Saving,
    given: Sequence[Message],
) -> None:
    for at in range(0, len(given), _BATCH):
        with Session(engine, expire_on_commit=False) as session:
            save(session, model, event, given[at : at + _BATCH])
            session.commit()


def _add(session: Session, model: Any, event: Any, given: Sequence[Message]) -> None:
    """Without looking whether it is stored: a second delivery would fail."""
    for each in given:
        session.add(model(**orm.message_columns(each)))
        session.add(event(**orm.event_columns(each)))


def _bulk(session: Session, model: Any, event: Any, given: Sequence[Message]) -> None:
    """SQLAlchemy's ORM bulk insert, which psycopg sends in pipeline mode."""
    session.execute(insert(model), [orm.message_columns(each) for each in given])
    session.execute(insert(event), [orm.event_columns(each) for each in given])


def _upsert(session: Session, model: Any, event: Any, given: Sequence[Message]) -> None:
    (message,) = given
    repository = _repository(model)(session=session, auto_refresh=False, auto_expunge=False)
    repository.upsert(model(**orm.message_columns(message)))
    session.add(event(**orm.event_columns(message)))


def _upsert_many(session: Session, model: Any, event: Any, given: Sequence[Message]) -> None:
    repository = _repository(model)(session=session, auto_refresh=False, auto_expunge=False)
    repository.upsert_many([model(**orm.message_columns(each)) for each in given])
    session.execute(insert(event), [orm.event_columns(each) for each in given])


def _repository(model: Any) -> Any:
    from advanced_alchemy.repository import SQLAlchemySyncRepository

    return type("Repository", (SQLAlchemySyncRepository,), {"model_type": model})


def _copied(size: Size) -> Opener:
    """COPY into a table without keys, indexes or events: how fast rows can be written at all."""

    @contextmanager
    def opened(stand: Stand) -> Iterator[Operation]:
        count = size(stand)
        model, _ = orm.models("bench_copy")
        names = [column.name for column in model.__table__.columns]
        with orm.tables(stand, "bench_copy", model), stand.psycopg() as connection:
            columns = ", ".join(names)
            connection.execute(
                f"CREATE TABLE bench_copy.bare AS SELECT {columns} FROM bench_copy.messages"
            )

            def call(rows: Sequence[Sequence[Any]]) -> None:
                with connection.cursor().copy("COPY bench_copy.bare FROM STDIN") as copy:
                    for row in rows:
                        copy.write_row(row)

            fresh = _fresh(count)

            def inputs(calls: int) -> list[list[tuple[Any, ...]]]:
                return [[_row(each) for each in given] for given in fresh(calls)]

            for proving in _proving(inputs, count, partial(_count, stand, "bench_copy.bare")):
                yield Operation(call=call, inputs=proving, per=count)

    return opened


def _row(message: Message) -> tuple[Any, ...]:
    values = orm.message_columns(message) | {"received_at": message.sent_at}
    return tuple(
        msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value
        for value in values.values()
    )


_OVER_SQLALCHEMY = "the same SQL and Redis over SQLAlchemy"
_ALCHEMY = "advanced_alchemy.base.CommonTableAttributes"

SAVE = Benchmark(
    id="save",
    what="one message with its event, committed to disk",
    contenders=(
        Contender("messages.save", Role.OURS, _ours(_one)),
        Contender(
            "the same SQL in psycopg", Role.LIMIT, _by_hand(_one, "hand", _drivers), needs=_PSYCOPG
        ),
        Contender(
            "the same SQL and Redis by hand",
            Role.FLOOR,
            _by_hand(_one, "drivers", _drivers, cached=True),
            needs=_DRIVERS,
        ),
        Contender(
            _OVER_SQLALCHEMY,
            Role.FLOOR,
            _by_hand(_one, "sqlalchemy", _sqlalchemy, cached=True),
            needs=("sqlalchemy", *_DRIVERS),
        ),
        Contender(
            "SQLAlchemy ORM, add",
            Role.ALTERNATIVE,
            _on_orm("bench_orm", _one, _add),
            needs=_ORM,
        ),
        Contender(
            "advanced-alchemy, upsert",
            Role.ALTERNATIVE,
            _on_orm("bench_alchemy", _one, _upsert, _ALCHEMY),
            needs=("advanced-alchemy", *_ORM),
        ),
    ),
    plan=Plan(rounds=40, calls=25, warmup=50),
    quick=Plan(rounds=15, calls=10, warmup=10),
    aim=Aim(limit=1.3),
    bound=Bound(
        _OVER_SQLALCHEMY,
        "a cache that is never wrong hears of a write before its commit and behind it, two round"
        " trips that the SQL alone does not have; and `tx.connection` is SQLAlchemy's, whose pool"
        " and transaction cost what they cost",
    ),
)


#: In turns of 5,000 (1,000 with --quick), so that nobody is alone with the machine for long.
SAVE_MANY = Benchmark(
    id="save-many",
    what="messages with their events in transactions of 1,000, per message; 100,000 by each",
    contenders=(
        Contender("messages.save_many", Role.OURS, _ours(_many)),
        Contender(
            "the same statements in psycopg",
            Role.LIMIT,
            _by_hand(_many, "hand", _drivers),
            needs=_PSYCOPG,
        ),
        Contender("COPY into a bare table", Role.FLOOR, _copied(_many), needs=_PSYCOPG),
        Contender(
            "SQLAlchemy ORM, bulk insert",
            Role.ALTERNATIVE,
            _on_orm("bench_orm", _many, _bulk),
            needs=_ORM,
        ),
        Contender(
            "advanced-alchemy, upsert_many",
            Role.ALTERNATIVE,
            _on_orm("bench_alchemy", _many, _upsert_many, _ALCHEMY),
            needs=("advanced-alchemy", *_ORM),
        ),
    ),
    plan=Plan(rounds=20, calls=1, warmup=1),
    quick=Plan(rounds=5, calls=1, warmup=1),
    aim=Aim(limit=1.3, alternatives=0.2),
    bound=Bound(
        "the same statements in psycopg",
        "they and PostgreSQL's work for them are what keeping the promises takes: uniqueness in a"
        " table of its own, order within a channel, events, partitions. The alternatives' one plain"
        " table promises none of it",
    ),
)

ROWS = (SAVE, SAVE_MANY)
