"""Asking: commands in few round trips, straight on a connection of a client's pool.

What redis-py does around each command (callbacks on replies, retries, records of how long it took)
takes its client longer than the command itself, and a pipeline does it for each command in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

#: A command's name and its arguments.
Command = tuple[str | bytes | int, ...]
#: Commands of one round trip, and keys of one command: a script for each of 10,000 messages takes
#: a server that is well longer than a timeout.
MOST = 1_000


def ask(client: Redis, commands: Sequence[Command]) -> list[Any]:
    """Return the replies as Redis gave them, in order; a refusal stands in its reply's place.

    Nothing is repeated. Raises redis-py's ConnectionError and TimeoutError, or OSError: then nobody
    knows which of the commands were performed.
    """
    if len(commands) > MOST:
        parts = (commands[at : at + MOST] for at in range(0, len(commands), MOST))
        return [reply for part in parts for reply in ask(client, part)]
    pool = client.connection_pool
    connection: Any = pool.get_connection()
    try:
        connection.send_packed_command([b"".join(connection.pack_commands(commands))])
        return [_reply(connection) for _ in commands]
    except BaseException:
        connection.disconnect()  # replies may be under way that are nobody's
        raise
    finally:
        pool.release(connection)


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as refusal:
        return refusal
