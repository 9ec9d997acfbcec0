"""`Servers`: the public face of the room, and the keeper thread that owns the processes."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

from telegram_hybrid.embedded.accounts import account_for, make_private
from telegram_hybrid.embedded.binaries import find
from telegram_hybrid.embedded.directories import (
    Held,
    hold,
    make_temporary,
    remove,
)
from telegram_hybrid.embedded.postgres import Postgres
from telegram_hybrid.embedded.process import Place, Server
from telegram_hybrid.embedded.valkey import Broker, Cache
from telegram_hybrid.errors import EmbeddedError, InvalidInput

_START_SECONDS = 60.0  # recovery of a large data directory takes its time
_WATCH_SECONDS = 0.1
_POLL_SECONDS = 0.01
_RELAUNCH_SECONDS = 1.0  # between two launches of a server that keeps ending
_log = logging.getLogger(__name__)


class Servers:
    """PostgreSQL, a cache and a broker, started by this process and ended with it.

    `data` None: temporary, removed at `stop`. A path: made if missing, kept, used by one process
    at a time. `cache_memory` is in bytes. `start` and `stop` may be called in any order and again;
    a `with` block calls both, and so does the end of the interpreter with `stop`.

    The three URLs hold from `start` to `stop`, also over restarts of a server: see the package.
    """

    def __init__(self, data: Path | str | None = None, *, cache_memory: int = 256 * 2**20) -> None:
        self.data = None if data is None else Path(data).absolute()
        self._cache_memory = cache_memory
        self._changing = threading.Lock()
        self._keeper: _Keeper | None = None
        self._stop_keeper: weakref.finalize[[], Servers] | None = None

    def start(self) -> Self:
        """Start the servers and wait until they answer (cold about 1.5 s, warm 0.3 s).

        Raises EmbeddedError (directory in use, a server that does not start, with the last lines
        of its log), MissingExtra (no binaries), ConfigurationError (an override is wrong).
        """
        with self._changing:
            if self._keeper is None:
                keeper = _Keeper(self.data, self._cache_memory)
                keeper.start()
                # The keeper must not know us, or we would never be collected.
                self._stop_keeper = weakref.finalize(self, keeper.close)
                try:
                    keeper.answering.result()
                except BaseException:
                    self._stop_keeper()
                    raise
                self._keeper = keeper
        return self

    def stop(self) -> None:
        """End the servers; kept data is shut down cleanly, temporary data removed."""
        with self._changing:
            self._keeper = None
            if self._stop_keeper is not None:
                self._stop_keeper()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def database_url(self) -> str:
        """`postgresql://postgres@/telegram?host=<directory>&port=5432`, libpq's form."""
        return self._running.postgres.url

    @property
    def redis_url(self) -> str:
        """`unix://<socket>?db=0`, for redis-py."""
        return self._running.cache.url

    @property
    def broker_url(self) -> str:
        """`redis+socket://<socket>?virtual_host=0`, for kombu."""
        return self._running.broker.url

    @property
    def pids(self) -> dict[str, int | None]:
        """The process ids of the last launches: `postgres`, `cache`, `broker`."""
        return {server.name: server.pid for server in self._running.servers}

    def check(self, timeout: float = 30.0) -> dict[str, int]:
        """Wait until every server answers; return how often each was restarted since `start`.

        Dead servers are restarted without this call too. Raises EmbeddedError, after `timeout`
        seconds, that names the server which does not answer and ends with its log.
        """
        keeper = self._running
        deadline = time.monotonic() + timeout
        for server in keeper.servers:
            while not server.answers():
                if time.monotonic() > deadline:
                    raise server.failure("does not answer" if server.alive else "is dead")
                time.sleep(_POLL_SECONDS)
        return {server.name: server.launches - 1 for server in keeper.servers}

    @property
    def _running(self) -> _Keeper:
        if self._keeper is None:
            raise EmbeddedError("the embedded servers are not running: call start() first")
        return self._keeper


class _Keeper(threading.Thread):
    """The one thread that launches, watches, restarts and ends the processes.

    One, and living until they are ended, because PR_SET_PDEATHSIG follows the forking thread.
    A daemon, because the interpreter waits for others before it calls what ends this one.
    """

    servers: Sequence[Server]
    postgres: Postgres
    cache: Cache
    broker: Broker

    def __init__(self, data: Path | None, cache_memory: int) -> None:
        super().__init__(name="telegram-hybrid-embedded", daemon=True)
        self.answering: Future[None] = Future()
        self.servers = ()
        self._held: list[Held] = []
        self._data = data
        self._cache_memory = cache_memory
        self._closing = threading.Event()
        self._process_id = os.getpid()
        _keepers.add(self)

    def close(self) -> None:
        """End the servers and wait for that; nothing in a forked child, whose they are not."""
        if os.getpid() == self._process_id:
            self._closing.set()
            # The collector may call this in any thread, also in this one.
            if threading.current_thread() is not self:
                self.join()

    def run(self) -> None:
        """Start, tell `answering`, watch until closed, clean up."""
        try:
            self._start_all()
        except OSError as error:
            self._clean_up()
            failed = EmbeddedError(f"cannot start the embedded servers: {error}")
            failed.__cause__ = error
            self.answering.set_exception(failed)
        except BaseException as error:  # noqa: BLE001 - raised where `answering` is awaited
            self._clean_up()
            self.answering.set_exception(error)
        else:
            self.answering.set_result(None)
            try:
                self._watch()
            finally:
                self._clean_up()

    def forget_locks(self) -> None:
        """Close inherited locks in a forked child: they are the parent's and the servers'."""
        held, self._held = self._held, []
        for directory in held:
            directory.release()

    def _start_all(self) -> None:
        place = self._take_place()
        binaries = find(place.account)
        self.postgres = Postgres(place, binaries)
        self.cache = Cache(place, binaries, memory=self._cache_memory)
        self.broker = Broker(place, binaries)
        self.servers = (self.cache, self.broker, self.postgres)
        # The two Valkeys come up while initdb, the longest part, runs.
        self.cache.launch()
        self.broker.launch()
        self.postgres.prepare()
        self.postgres.launch()
        deadline = time.monotonic() + _START_SECONDS
        for server in self.servers:
            while not server.answers():
                if self._closing.is_set():
                    raise EmbeddedError("the embedded servers were stopped while starting")
                if not server.alive:
                    raise server.failure("ended while starting")
                if time.monotonic() > deadline:
                    raise server.failure("does not answer")
                time.sleep(_POLL_SECONDS)

    def _take_place(self) -> Place:
        """Lock (or make) the directories that the servers use."""
        runtime = make_temporary()
        self._held.append(runtime)
        if self._data is not None:
            _make(self._data)
            self._held.append(hold(self._data))
        data = self._data or runtime.path
        account = account_for(data)
        if account:
            runtime.path.chmod(0o711)
        for name in (Cache.name, Broker.name):
            make_private(data / name, account)
        return Place(
            data=data,
            sockets=make_private(runtime.path / "s", account),
            kept=self._data is not None,
            account=account,
            inherited=tuple(directory.fd for directory in self._held),
        )

    def _watch(self) -> None:
        relaunched = dict.fromkeys(self.servers, 0.0)
        while not self._closing.wait(_WATCH_SECONDS):
            now = time.monotonic()
            for server in self.servers:
                if server.alive or now - relaunched[server] < _RELAUNCH_SECONDS:
                    continue
                relaunched[server] = now
                _log.warning(
                    "embedded %s (pid %s) died: starting it again", server.name, server.pid
                )
                try:
                    server.launch()
                except (EmbeddedError, OSError) as error:
                    _log.warning("embedded %s does not start: %s", server.name, error)

    def _clean_up(self) -> None:
        for server in reversed(self.servers):
            server.end()
        held, self._held = self._held, []
        if held:
            remove(held[0].path)
        for directory in held:
            directory.release()


_keepers: weakref.WeakSet[_Keeper] = weakref.WeakSet()


def _forget_locks() -> None:
    for keeper in _keepers:
        keeper.forget_locks()


os.register_at_fork(after_in_child=_forget_locks)


def _make(data: Path) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidInput("data", f"{data}: a file stands where a directory belongs") from error
