"""Recording: what the library sends to Redis and PostgreSQL, to send just the same by hand.

"The same commands by hand" is a limit only if they are the same: so they are not written down
here, where they would grow old, but listened to, and replayed over redis-py and psycopg alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs
import psycopg
import redis
from redis.connection import AbstractConnection
from statements import heard

Row = tuple[Any, ...]


@attrs.frozen
class Commands:
    """Redis commands that shared one round trip."""

    commands: tuple[tuple[Any, ...], ...]


@attrs.frozen
class Statement:
    """One SQL statement, as the driver was given it."""

    text: str
    values: Any


Step = Commands | Statement
S = TypeVar("S", Statement, Step)


@contextmanager
def recording() -> Iterator[list[Step]]:
    """Collect what this process sends meanwhile, by any client of Redis or PostgreSQL."""
    steps: list[Step] = []

    send, pack = AbstractConnection.send_command, AbstractConnection.pack_commands

    def send_command(self: Any, *words: Any, **options: Any) -> Any:
        steps.append(Commands((words,)))
        return send(self, *words, **options)

    def pack_commands(self: Any, commands: Any) -> Any:
        several = [tuple(each) for each in commands]
        steps.append(Commands(tuple(several)))
        return pack(self, several)

    AbstractConnection.send_command = send_command  # type: ignore[method-assign]
    AbstractConnection.pack_commands = pack_commands  # type: ignore[method-assign]
    try:
        with heard(lambda text, values: steps.append(Statement(text, values))):
            yield steps
    finally:
        AbstractConnection.send_command = send  # type: ignore[method-assign]
        AbstractConnection.pack_commands = pack  # type: ignore[method-assign]


def statements(steps: Sequence[Step]) -> list[Statement]:
    """The SQL alone."""
    return [each for each in steps if isinstance(each, Statement)]


def elsewhere(steps: Sequence[S], name: str, other: str) -> list[S]:
    """The same steps in another schema, and under another prefix of keys."""
    return [_elsewhere(each, name, other) for each in steps]


def _elsewhere(step: Any, name: str, other: str) -> Any:
    if isinstance(step, Statement):
        return attrs.evolve(step, text=step.text.replace(name, other))
    words = [
        [w.replace(name, other) if isinstance(w, str) else w for w in c] for c in step.commands
    ]
    return Commands(tuple(map(tuple, words)))


def replay(
    steps: Sequence[Step], client: redis.Redis | None, connection: psycopg.Connection[Any]
) -> list[tuple[Sequence[str], list[Row]]]:
    """Send it all again; return the columns and rows of every statement that has some."""
    results = []
    for step in steps:
        if isinstance(step, Commands):
            assert client is not None
            send_commands(client, step)
            continue
        cursor = connection.execute(step.text, step.values)
        if cursor.description is not None:
            results.append(([column.name for column in cursor.description], cursor.fetchall()))
    return results


def send_commands(client: redis.Redis, step: Commands) -> None:
    """Send what shared a round trip in one."""
    if len(step.commands) == 1:
        client.execute_command(*step.commands[0])
        return
    pipeline = client.pipeline(transaction=False)
    for words in step.commands:
        pipeline.execute_command(*words)
    pipeline.execute()
