"""redis-py clients that follow the directory, and, if asked to, repeat calls until a deadline."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from random import choice
from time import monotonic, sleep
from typing import Any, Protocol, TypeVar

import redis
from redis.client import Pipeline
from redis.exceptions import BusyLoadingError, ReadOnlyError
from tenacity import Retrying, retry_if_exception, stop_before_delay, wait_random_exponential

from telegram_hybrid.connect.redis import repeating
from telegram_hybrid.connect.redis.directory import Directory
from telegram_hybrid.connect.redis.discovery import Address, NoRole, parse_role
from telegram_hybrid.connect.redis.failures import NoReply, NotConnected
from telegram_hybrid.connect.redis.restarts import Restarts
from telegram_hybrid.errors import HybridError

T = TypeVar("T")
_BROKEN = (redis.ConnectionError, redis.TimeoutError, OSError)

#: Fewest seconds of a deadline that are kept for the last attempt.
_LAST_ATTEMPT = 0.8


class Guide(Protocol):
    """Tells connections where to go."""

    directory: Directory
    wants_master: bool

    def place(self, current: Address | None) -> tuple[Address, int]:
        """Where to be now, and the epoch; `current` is where the connection is."""


class MasterGuide:
    """To the master."""

    wants_master = True

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.restarts = Restarts()

    def place(self, current: Address | None) -> tuple[Address, int]:
        """The master."""
        return self.directory.master()


class ReplicaGuide:
    """To a replica at most `max_lag` seconds behind, or to the master if there is none."""

    wants_master = False

    def __init__(self, directory: Directory, max_lag: float) -> None:
        self.directory = directory
        self._max_lag = max_lag

    def place(self, current: Address | None) -> tuple[Address, int]:
        """Any replica that will do; the current one if it does."""
        master, epoch = self.directory.master()
        replicas = self.directory.replicas(self._max_lag)
        if current in replicas:
            return current, epoch
        return (choice(replicas) if replicas else master), epoch  # noqa: S311  (no secret)


class _Guided:
    """Beside a connection class of redis-py: connects where the guide says, after proving it."""

    host: str
    port: int
    _sock: socket.socket | None

    def __init__(self, *, guide: Guide, **options: Any) -> None:
        self._guide = guide
        self._place: tuple[Address, int] | None = None
        super().__init__(**options, redis_connect_func=_Guided._greet)  # type: ignore[call-arg]

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        """Be connected to the right node: stay, move, or raise `NotConnected`.

        All ways to connect lead through here; `connect` is passed by when a command is sent on a
        connection that was lost, by a pipeline that tries WATCH again for one.
        """
        here = self._place[0] if self._place is not None and self._sock is not None else None
        place = self._guide.place(here)
        if place == self._place and self._sock is not None:
            return
        self.disconnect()  # type: ignore[attr-defined]
        self._place = place
        self.host, self.port = place[0].host, place[0].port
        try:
            super().connect_check_health(*args, **kwargs)  # type: ignore[misc]
        except _BROKEN:
            self._guide.directory.doubt(place[0])
            raise
        if self._guide.wants_master and self._guide.place(place[0]) != place:
            self.disconnect()  # type: ignore[attr-defined]
            raise NotConnected("Redis: the master changed while we connected to it")

    def _greet(self) -> None:
        """What redis-py does on a new connection, and then: prove the role."""
        self.on_connect()  # type: ignore[attr-defined]
        self.send_command("ROLE", check_health=False)  # type: ignore[attr-defined]
        role = parse_role(_read_raw(self), {})
        if isinstance(role, NoRole):
            raise NotConnected(f"Redis at {self.host}:{self.port} {role.detail}")
        if self._guide.wants_master and not role.is_master:
            raise NotConnected(f"Redis at {self.host}:{self.port} is a replica by now")
        if isinstance(self._guide, MasterGuide):
            self._guide.restarts.ask(self, self._place)

    def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        """As in redis-py; a failure makes the directory ask again."""
        with self._doubting():
            super().send_packed_command(*args, **kwargs)  # type: ignore[misc]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """As in redis-py; a failure, or a master that became a replica, makes it ask again."""
        with self._doubting():
            return super().read_response(*args, **kwargs)  # type: ignore[misc]

    @contextlib.contextmanager
    def _doubting(self) -> Any:
        try:
            yield
        except (*_BROKEN, ReadOnlyError) as error:
            if self._place is not None:
                self._guide.directory.doubt(self._place[0])
            if isinstance(error, ReadOnlyError):
                self._place = None  # ask where to go before the next use
            raise

    def hang_up(self) -> None:
        """Wake a thread that waits for a reply; callable from any thread."""
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _read_raw(connection: Any) -> Any:
    return connection.read_response(disable_decoding=True)


def guided(connection_class: type[Any]) -> type[Any]:
    """A connection class of redis-py that follows a guide."""
    return type(f"Guided{connection_class.__name__}", (_Guided, connection_class), {})


class PatientRedis(redis.Redis):
    """A client whose calls are repeated for `deadline` seconds while Redis fails over.

    `repeating` says which calls. Pub/sub and blocking commands are redis-py's own business.
    """

    deadline = 5.0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Perform one command; raises `NoReply` or `NotConnected` when the deadline has passed."""
        return repeat(
            lambda: redis.Redis.execute_command(self, *args, **options),  # type: ignore[no-untyped-call]
            self.deadline,
            self._reserve,
            repeatable=repeating.is_repeatable(args),
            pause=self._pause,
        )

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        """A pipeline that is repeated as a whole, if every command of it may be."""
        pipeline = PatientPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )
        pipeline.deadline, pipeline.reserve = self.deadline, self._reserve
        pipeline.pause = self._pause
        return pipeline

    @property
    def _reserve(self) -> float:
        timeout = self.connection_pool.connection_kwargs["socket_timeout"]
        return reserve_of(self.deadline, timeout)

    def _pause(self, seconds: float) -> None:
        guide = getattr(self.connection_pool, "guide", None)
        if guide is None:
            sleep(seconds)
        else:
            guide.directory.wait(seconds)


class PatientPipeline(Pipeline):
    """The pipeline of a `PatientRedis`; with WATCH it is not repeated."""

    deadline = 5.0
    reserve = _LAST_ATTEMPT
    pause: Callable[[float], None] = staticmethod(sleep)

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send everything and return the replies, in order."""
        if self.watching or self.connection is not None:
            return super().execute(raise_on_error)
        stack, scripts, explicit = list(self.command_stack), self.scripts, self.explicit_transaction
        repeatable = repeating.are_repeatable(command for command, _ in stack)
        give_up = monotonic() + self.deadline - self.reserve
        replies = repeat(
            lambda: self._attempt(stack, scripts, explicit, repeatable, give_up),
            self.deadline,
            self.reserve,
            repeatable=repeatable,
            pause=self.pause,
        )
        if raise_on_error:  # here, where nothing is repeated for it any more
            self.raise_first_error(stack, replies)  # type: ignore[no-untyped-call]
        return replies

    def _attempt(
        self, stack: list[Any], scripts: set[Any], explicit: bool, repeatable: bool, give_up: float
    ) -> list[Any]:
        """Send everything once, from a state as if it were the first time."""
        self.reset()  # a connection on which an earlier attempt failed to load the scripts
        # The next master may not know the scripts that the last one did.
        self.command_stack, self.scripts = list(stack), set(scripts)
        self.explicit_transaction = explicit
        try:
            replies: list[Any] = super().execute(raise_on_error=False)
        except BusyLoadingError as error:
            # One for the whole pipeline, of which a PUBLISH may have been performed.
            if repeatable or vars(self)["transaction"] or explicit or len(stack) == 1:
                raise
            raise redis.ConnectionError(str(error)) from error
        refusal = repeating.refused(replies, repeatable)
        if refusal is not None and monotonic() < give_up:
            raise refusal
        return replies


def timeout_within(deadline: float, timeout: float) -> float:
    """Seconds for one reply, so short that a second attempt fits into the deadline."""
    return min(timeout, deadline / 4)


def reserve_of(deadline: float, timeout: float) -> float:
    """Seconds of the deadline kept for an attempt: to connect, to be greeted, and for the reply."""
    return min(deadline / 2, max(_LAST_ATTEMPT, 3 * timeout))


def repeat(
    call: Callable[[], T],
    deadline: float,
    reserve: float,
    *,
    repeatable: bool,
    pause: Callable[[float], None],
) -> T:
    """Call until it succeeds, with jitter between the attempts, for `deadline` seconds in all.

    The last `reserve` seconds of them no attempt begins.
    """
    retrying = Retrying(
        stop=stop_before_delay(deadline - reserve),
        wait=wait_random_exponential(multiplier=0.02, max=0.1),
        retry=retry_if_exception(lambda error: repeating.may_repeat(error, repeatable)),
        sleep=pause,
        reraise=True,
    )
    try:
        return retrying(call)
    except HybridError:
        raise
    except (redis.ConnectionError, redis.TimeoutError) as error:
        tried = f"within {deadline:g} s" if repeatable else "and the command is not safe to repeat"
        raise NoReply(f"Redis gave no reply {tried}: {error}") from error
