"""The router: gives an engine its connections, by the way that serves, under one deadline."""

from __future__ import annotations

import os
import select
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Thread
from time import monotonic, sleep
from typing import Any

import attrs
import psycopg
import sqlalchemy
from sqlalchemy import URL, Engine, event
from tenacity import Retrying, retry_if_exception, stop_before_delay, wait_random_exponential

from telegram_hybrid.connect.postgres.refusals import (
    advice,
    first_line,
    has_answered,
    is_worth_another_try,
)
from telegram_hybrid.connect.postgres.routes import DOUBT_AFTER, PROBE_EVERY, Route, Routes
from telegram_hybrid.connect.postgres.watched import WatchedConnection
from telegram_hybrid.errors import Closed

#: Seconds for a login at the pooler and, again, for its first answer.
POOLER_PATIENCE = 3
#: Seconds that a cancelled statement has to end.
_CANCEL_SECONDS = 2.0


#: All there are, for a forked child: the locks and connections it inherits are its parent's.
_routers: weakref.WeakSet[Router] = weakref.WeakSet()


def _after_fork() -> None:
    for router in list(_routers):
        router._begin_anew()


os.register_at_fork(after_in_child=_after_fork)


@attrs.frozen(slots=True)
class Way:
    """An address, and what goes to the driver beside it: options, and secrets of its query."""

    url: URL
    options: Mapping[str, Any] = attrs.field(repr=False)


@attrs.define(slots=True)
class _Trip:
    """What a connection of the pool remembers of its way."""

    route: Route
    epoch: int
    losses: int
    fresh: bool = True
    cancelled: bool = False
    waited: float = 0.0


class Router:
    """Connections for one engine by one or two `ways`.

    `deadline` limits the search for a connection, retries included; `statement_timeout` the wait
    for one answer (None: without end). Seconds.
    """

    def __init__(
        self,
        ways: Mapping[Route, Way],
        *,
        deadline: float,
        statement_timeout: float | None,
    ) -> None:
        self.ways = ways
        self.routes = Routes(pooler=Route.POOLER in ways)
        self.shut = False
        self._resting = False
        self._deadline = deadline
        self._statement_timeout = statement_timeout
        self._dialect: Any = None
        self._engine: Callable[[], Engine | None] = lambda: None
        #: How many connections were lost while they were used.
        self._losses = 0

    def attach(self, engine: Engine) -> None:
        """Give `engine` its connections from now on."""
        self._dialect, self._engine = engine.dialect, weakref.ref(engine)
        event.listen(engine, "do_connect", self._connect)
        event.listen(engine, "checkout", self._check)
        event.listen(engine, "invalidate", self._lose)
        event.listen(engine, "engine_disposed", self._rest)
        _routers.add(self)

    def _begin_anew(self) -> None:
        """Leave everything to the parent: also the places of what its threads have in use.

        Two processes that read one socket take each other's answers (SQLAlchemy, "Using Connection
        Pools with Multiprocessing").
        """
        self.routes = Routes(pooler=Route.POOLER in self.ways)
        if (engine := self._engine()) is not None:
            engine.dispose(close=False)

    # Connecting: before the first statement of any transaction, so that repeating is safe.

    def _connect(self, _dialect: Any, record: Any, _args: object, _options: object) -> Any:
        if self.shut:
            raise Closed("this Hybrid is closed; connect again")
        self._resting = False
        retrying = Retrying(
            retry=retry_if_exception(self._is_worth_another_try),
            stop=stop_before_delay(self._deadline),
            wait=wait_random_exponential(multiplier=0.05, max=0.5),
            reraise=True,
        )
        connection, trip = retrying(self._by_any_way, monotonic() + self._deadline)
        record.info["trip"] = trip
        return connection

    def _is_worth_another_try(self, error: BaseException) -> bool:
        lost = isinstance(error, psycopg.Error) and self.awaits_pooler()
        return lost or is_worth_another_try(error)

    def awaits_pooler(self) -> bool:
        """Whether it may be the pooler's absence alone that keeps one from connecting.

        Where only the pooler may log in, the direct way refuses everybody, all the time.
        """
        trouble = self.routes.trouble
        return Route.POOLER in self.ways and (trouble is None or advice(trouble) is None)

    def _by_any_way(self, give_up: float) -> tuple[WatchedConnection, _Trip]:
        failures: dict[Route, psycopg.Error] = {}
        for route in self.routes.order():
            try:
                return self._open(route, max(2, round(give_up - monotonic())))
            except psycopg.Error as error:
                if isinstance(error, psycopg.errors.ConnectionTimeout) and self._is_busy(route):
                    raise
                self.routes.failed(route, first_line(error))
                failures[route] = error
                self._search()
        raise failures[Route.DIRECT]

    def _is_busy(self, route: Route) -> bool:
        """Whether this is the pooler, and it keeps others waiting no longer than us.

        Then everybody going around it would only carry the load to the server that it protects,
        and take the connections that it needs there.
        """
        return route is Route.POOLER and self.routes.is_busy(monotonic())

    def _open(self, route: Route, seconds: int) -> tuple[WatchedConnection, _Trip]:
        trip = _Trip(route, self.routes.epoch, self._losses)
        if route is Route.POOLER:
            connection = self._login(route, POOLER_PATIENCE)
            connection.answered = lambda: self.routes.heard(monotonic())
            _prove(connection)
        else:
            connection = self._login(route, seconds)
        connection.watch = lambda each, waited: self._watch(each, trip, waited)
        self.routes.answered(route)
        return connection, trip

    def _login(self, route: Route, seconds: int) -> WatchedConnection:
        way = self.ways[route]
        _, options = self._dialect.create_connect_args(way.url)
        wanted = {**options, **way.options, "connect_timeout": seconds}
        connection: WatchedConnection = WatchedConnection.connect(**wanted)
        # It goes with each BEGIN; a default of the database's would make waits for locks useless.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        return connection

    # The pool: a connection leaves it only if its way still serves.

    def _check(self, connection: Any, record: Any, _proxy: Any) -> None:
        """Have the pool replace a connection that is closed, or not of the way that serves.

        A server that ends a connection closes its socket, which then is readable; an idle one that
        is well has nothing to say. SQLAlchemy's pre-ping costs three round trips for the same. Of
        one that a lost host has forgotten nothing tells, but that another one was lost in use.
        """
        self._search()
        trip: _Trip = record.info["trip"]
        fresh, trip.fresh = trip.fresh, False
        # A fresh one is taken as it is: the pool replaces only once.
        if not fresh and not self.routes.carries(trip.route, trip.epoch):
            raise sqlalchemy.exc.DisconnectionError(f"{trip.route.value} does not serve any more")
        if not fresh and trip.losses != self._losses:
            raise sqlalchemy.exc.DisconnectionError("another one of its time was lost")
        readable = select.poll()
        readable.register(connection.fileno(), select.POLLIN)
        if readable.poll(0):
            raise sqlalchemy.exc.DisconnectionError("the server has closed an idle connection")
        # Of a read that was interrupted before it had put that back.
        if connection.autocommit:
            connection.autocommit = False

    def _lose(self, _connection: Any, _record: Any, error: BaseException | None) -> None:
        """Note that a connection broke in use, and not while it was idle."""
        self._losses += isinstance(error, psycopg.Error)

    # Waiting for an answer

    def _watch(self, connection: WatchedConnection, trip: _Trip, waited: float) -> None:
        if trip.route is Route.POOLER and waited > DOUBT_AFTER:
            if self.routes.is_lost(trip.epoch):
                raise psycopg.OperationalError(f"no answer: {self.routes.trouble}")
            if self.routes.claim_doubt(monotonic()) and not _in_background(
                self._ask_whether_pooler_lives
            ):
                self.routes.alive(monotonic())
        if waited < trip.waited:
            trip.cancelled = False  # it waits for another statement
        trip.waited = waited
        limit = self._statement_timeout
        if limit is None or waited <= limit:
            return
        if not trip.cancelled:
            trip.cancelled = True
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=1.0)
        elif waited > limit + _CANCEL_SECONDS:
            raise psycopg.OperationalError(f"no answer within {limit:g} seconds")

    # Looking for the pooler: in a thread of its own, so that no caller waits for one that is mute.

    def _search(self) -> None:
        # The thread does not keep alive an engine that everybody else has forgotten.
        if self.routes.claim_search() and not _in_background(
            _look_until_found, weakref.ref(self), self.routes
        ):
            self.routes.search_ended()

    def _rest(self, _engine: Engine) -> None:
        """Look no more for the pooler of a disposed engine, until it is used again."""
        self._resting = True

    def look_for_pooler(self) -> bool:
        """Ask the pooler for an answer, once; return whether to go on looking."""
        if self.shut or self._resting or self.routes.serving is Route.POOLER:
            return False
        try:
            connection, _ = self._open(Route.POOLER, POOLER_PATIENCE)
        except psycopg.Error as error:
            self.routes.failed(Route.POOLER, first_line(error))
            return True
        connection.close()
        return False

    def _ask_whether_pooler_lives(self) -> None:
        try:
            self._login(Route.POOLER, POOLER_PATIENCE).close()
        except psycopg.Error as error:
            late = isinstance(error, psycopg.errors.ConnectionTimeout)
            if has_answered(error) or (late and self._is_busy(Route.POOLER)):
                self.routes.alive(monotonic())
                return
            self.routes.silent(first_line(error))
            self._search()
        else:
            self.routes.alive(monotonic())


def _in_background(work: Any, *args: object) -> bool:
    """Whether it has begun: where there are no more threads, the next one tries again."""
    try:
        Thread(target=work, args=args, name="telegram_hybrid.pooler", daemon=True).start()
    except RuntimeError:
        return False
    return True


def _look_until_found(owner: weakref.ref[Router], routes: Routes) -> None:
    try:
        while True:
            sleep(PROBE_EVERY)
            router = owner()
            if router is None or not router.look_for_pooler():
                return
            del router
    finally:
        routes.search_ended()


def _prove(connection: WatchedConnection) -> None:
    """Ask for one answer: a pooler greets its clients even while the server behind it is gone."""

    def limit(_: WatchedConnection, waited: float) -> None:
        if waited > POOLER_PATIENCE:
            raise psycopg.errors.ConnectionTimeout(
                f"it takes the login, but gives no answer within {POOLER_PATIENCE} seconds"
            )

    connection.watch = limit
    try:
        connection.autocommit = True
        connection.execute("SELECT 1")
        connection.autocommit = False
    except BaseException:
        connection.close()
        raise
