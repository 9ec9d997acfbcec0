"""Questions to sentinels and nodes: asked in parallel, given up soon, never repeated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from threading import RLock, Thread
from time import monotonic
from typing import Any, TypeVar

import redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from telegram_hybrid.connect.redis.discovery import (
    Address,
    Answer,
    History,
    NoAnswer,
    NoRole,
    Role,
    Silence,
    parse_answer,
    parse_history,
    parse_role,
)
from telegram_hybrid.connect.redis.failures import explain
from telegram_hybrid.connect.redis.url import TIMEOUT, Target

T = TypeVar("T")
_log = logging.getLogger("telegram_hybrid.redis")

#: Seconds that a discovery waits for its sentinels.
PATIENCE = 0.3
#: Seconds that it waits for the role of a node that was too slow the last time.
_GLANCE = 0.05


#: The settings that name sentinels, and nodes.
SENTINELS = "TELEGRAM_REDIS_SENTINELS or the URL's hosts"
NODES = "TELEGRAM_REDIS_HOST, or _ADDRESS_MAP if a server announces it"


class Questions:
    """Keeps one connection to each sentinel and node that it was asked about.

    `timeout` is for connecting and for each reply, `patience` for all sentinels together; seconds.
    """

    def __init__(
        self, target: Target, *, timeout: float = TIMEOUT, patience: float = PATIENCE
    ) -> None:
        self._target = target
        self._timeout, self._patience = timeout, patience
        self._lines: dict[tuple[Address, bool], _Line] = {}
        self._mute: set[Address] = set()
        self._slow: set[Address] = set()

    def sentinels(self) -> list[Answer | NoAnswer]:
        """Ask all sentinels at once; `patience` seconds at most.

        One that kept silent the last time is asked but not waited for, if others answer.
        """
        began = monotonic()
        lines = {each: self._line(each, sentinel=True) for each in self._target.sentinels}
        mute = {each for each in self._mute if not isinstance(lines[each].last(), Answer)}
        asked = {each: line.ask(self._ask_sentinel, each) for each, line in lines.items()}
        wait([asked[each] for each in asked if each not in mute], self._patience)
        if not any(isinstance(_result(each), Answer) for each in asked.values()):
            wait(asked.values(), max(0.0, began + self._patience - monotonic()))
        replies = [
            _result(future)
            or NoAnswer(address, Silence.UNREACHABLE, lines[address].waiting_for(SENTINELS))
            for address, future in asked.items()
        ]
        self._mute = {
            each.sentinel
            for each in replies
            if isinstance(each, NoAnswer) and each.reason is Silence.UNREACHABLE
        }
        return replies

    def role(self, address: Address) -> Role | NoRole:
        """Ask one node for its role; two timeouts at most, one to connect and one for the reply."""
        return self.roles([address])[address]

    def roles(self, addresses: Iterable[Address]) -> dict[Address, Role | NoRole]:
        """Ask nodes for their roles, all at once.

        For one that did not answer in time before we wait a moment only, again and again: while
        we wait for a stopped master, its successor may be named.
        """
        lines = {each: self._line(each, sentinel=False) for each in addresses}
        asked = {each: line.ask(self._ask_role) for each, line in lines.items()}
        wait([asked[each] for each in asked if each not in self._slow], 2 * self._timeout)
        wait(asked.values(), _GLANCE)
        replies = {
            address: _result(future) or NoRole(lines[address].waiting_for(NODES), slow=True)
            for address, future in asked.items()
        }
        slow = {each for each, role in replies.items() if isinstance(role, NoRole) and role.slow}
        self._slow = self._slow - replies.keys() | slow
        return replies

    def history(self, address: Address) -> History:
        """Ask one node, that has just told its role, for its history."""
        future = self._line(address, sentinel=False).ask(self._ask_history)
        wait([future], self._timeout)
        found = _result(future)
        return found if isinstance(found, History) else History()

    def close(self) -> None:
        """Close all connections."""
        for line in list(self._lines.values()):
            line.close()

    def _line(self, address: Address, *, sentinel: bool) -> _Line:
        line = self._lines.get((address, sentinel))
        if line is None:
            line = self._lines[address, sentinel] = _Line(self._connection(address, sentinel))
        return line

    def _connection(self, address: Address, sentinel: bool) -> Any:
        kind = self._target.sentinel_class if sentinel else self._target.connection_class
        options = self._target.sentinel_options if sentinel else self._target.options
        limits: dict[str, Any] = {
            "socket_timeout": self._timeout,
            "socket_connect_timeout": self._timeout,
            "db": 0,
        }
        limits |= {"host": address.host, "port": address.port, "protocol": 2}
        return kind(**{**options, **limits, "encoding": "utf-8"})

    def _ask_sentinel(self, connection: Any, address: Address) -> Answer | NoAnswer:
        name = self._target.master_name
        try:
            replies = _call(
                connection, ("SENTINEL", "MASTER", name), ("SENTINEL", "REPLICAS", name)
            )
            return parse_answer(address, replies[0], replies[1], self._target.address_map)
        except NoPermissionError as error:
            return NoAnswer(address, Silence.REFUSED, f"its user may not ask: {error}")
        except ResponseError as error:
            text = str(error)
            if text.startswith("DENIED"):  # protected mode: no password, and we are not local
                return NoAnswer(address, Silence.REFUSED, text.split(",")[0])
            unknown = "no such master" in text.lower()
            reason = Silence.UNKNOWN_MASTER if unknown else Silence.NOT_A_SENTINEL
            return NoAnswer(address, reason, "" if unknown else text.split(",")[0])
        except (TypeError, ValueError) as error:
            return NoAnswer(address, Silence.NOT_A_SENTINEL, str(error))
        except (RedisError, OSError) as error:
            detail, permanent = explain(error, self._target.sentinel_options)
            detail, _, words = detail.partition(": check")  # which names the nodes' settings
            if "_HOST" in words:
                detail += f": check {SENTINELS}"
            reason = Silence.REFUSED if permanent else Silence.UNREACHABLE
            return NoAnswer(address, reason, detail)

    def _ask_role(self, connection: Any) -> Role | NoRole:
        try:
            return parse_role(_call(connection, ("ROLE",))[0], self._target.address_map)
        except (RedisError, OSError, TypeError, ValueError) as error:
            detail, permanent = explain(error, self._target.options)
            slow = isinstance(error, redis.TimeoutError | TimeoutError)
            return NoRole(detail, permanent, slow=slow)

    def _ask_history(self, connection: Any) -> History:
        try:
            return parse_history(_call(connection, ("INFO", "replication"))[0])
        except (RedisError, OSError, ValueError) as error:
            _log.debug("a Redis does not tell its history: %s", error)
            return History()


class _Line:
    """One connection, asked one thing at a time, each in a thread of its own.

    Resolving a name or shaking hands may take longer than anybody waits; whoever asks meanwhile
    shares the answer that is still to come.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._lock = RLock()
        self._pending: Future[Any] | None = None
        self._closing = False

    def ask(self, question: Callable[..., T], *details: Any) -> Future[T]:
        """Ask; the answer is the question's return value for our connection."""
        with self._lock:
            if self._pending is not None and not self._pending.done():
                return self._pending
            future: Future[T] = Future()

            def run() -> None:
                try:
                    answer = question(self._connection, *details)
                except BaseException as error:
                    self._connection.disconnect()
                    future.set_exception(error)
                    raise
                with self._lock:
                    future.set_result(answer)
                    if self._closing:
                        self._connection.disconnect()

            thread = Thread(target=run, name="telegram_hybrid redis question", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # there are no more threads
                run()
            self._pending, self._closing = future, False
        return future

    def waiting_for(self, settings: str) -> str:
        """Why there is no answer yet; `settings` name the server."""
        if self._connection._sock is None:
            why = "its name cannot be resolved, or it cannot be connected to, in time"
            return f"{why}: check {settings}"
        return "does not answer in time"

    def last(self) -> object:
        """The last answer, None if it is still to come."""
        pending = self._pending
        return _result(pending) if pending is not None else None

    def close(self) -> None:
        """Close the connection, at once or when the question that is under way has ended."""
        with self._lock:
            self._closing = True
            if self._pending is None or self._pending.done():
                self._connection.disconnect()


def _call(connection: Any, *commands: tuple[str, ...]) -> list[Any]:
    """Send commands in one go and return the replies; a broken connection is used only once."""
    if connection._sock is not None and not _idle(connection):
        connection.disconnect()
    connection.connect()
    try:
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        replies = []
        for _ in commands:
            try:
                replies.append(connection.read_response(disable_decoding=True))
            except ResponseError as error:
                replies.append(error)
    except BaseException:
        connection.disconnect()
        raise
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies


def _idle(connection: Any) -> bool:
    try:
        return not connection.can_read(0)
    except (RedisError, OSError):
        return False


def _result(future: Future[Any]) -> Any:
    return future.result() if future.done() else None
