"""Health: what each service answers, as values that name, time and explain themselves.

After svcs' ServicePing (hynek/svcs, `_core.py`), but performed at once and kept as a result.
Every question opens a connection of its own: an old one that still works proves nothing about a
new one. A running `Hybrid` adds the ways that it goes itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

import attrs
import redis
from sqlalchemy import Engine

from telegram_hybrid.connect.postgres import Route, route
from telegram_hybrid.connect.redis import View, directory_of
from telegram_hybrid.health.broker import ask_broker
from telegram_hybrid.health.postgres import Store, ask_pooler, ask_server
from telegram_hybrid.health.redis import ask_redis, ask_sentinels_of
from telegram_hybrid.health.values import Health, Node, Outbox, Queue, ServiceHealth, State
from telegram_hybrid.settings import Settings

__all__ = ["SECONDS", "Health", "Node", "Outbox", "Queue", "ServiceHealth", "State", "check"]

#: Seconds after which whoever has not answered counts as mute.
SECONDS = 4.0
#: Seconds that the broker waits to hear from the database which queues there are.
_NAMES_WITHIN = 1.0

T = TypeVar("T")


def check(
    settings: Settings,
    *,
    seconds: float = SECONDS,
    engine: Engine | None = None,
    client: redis.Redis | None = None,
    queues: Iterable[str] = (),
) -> Health:
    """Ask all services at once, and return after `seconds` at most, however mute one of them is.

    `engine` and `client` are those of a running `Hybrid`: by which way they go is told, where it
    differs from what new connections find. `queues` are asked for their depths besides the
    dead-letter queue and those that the inbox knows. Never raises what a service's `why` can say.
    """
    live, trouble = _ways(engine, client)
    each = seconds / 2  # so that a second way has its chance
    server = _start(lambda: ask_server(settings, each))
    pooler = _start(lambda: ask_pooler(settings, each))
    cache = _start(lambda: ask_redis(settings.redis_url, live))
    sentinels = _start(lambda: ask_sentinels_of(settings.redis_url))
    broker = _start(lambda: ask_broker(settings, each, lambda: {*queues, *_known_queues(server)}))
    asked: list[Future[Any]] = [server, pooler, cache, sentinels, broker]
    wait(asked, seconds)

    def answer(future: Future[T], otherwise: T) -> T:
        return future.result() if future.done() else otherwise

    def mute(name: str, state: State) -> ServiceHealth:
        return ServiceHealth(name=name, state=state, why=f"no answer within {seconds:g} s")

    store = answer(server, Store(mute("postgresql", State.DOWN)))
    database, pool = _by_way(
        store.service, answer(pooler, mute("pgbouncer", State.DEGRADED)), trouble
    )
    return Health(
        services=(
            database,
            pool,
            answer(cache, mute("redis", State.DEGRADED)),
            answer(sentinels, mute("sentinel", State.DEGRADED)),
            answer(broker, mute("broker", State.DOWN)),
        ),
        outbox=store.outbox,
    )


def _ways(engine: Engine | None, client: redis.Redis | None) -> tuple[View | None, str | None]:
    """What a running Hybrid knows of Redis' master, and why it avoids the pooler."""
    way, trouble = route(engine) if engine is not None else (Route.POOLER, None)
    directory = directory_of(client) if client is not None else None
    view = directory.view() if directory is not None else None
    asked = view is not None and (view.master is not None or view.epoch > 0)
    return view if asked else None, trouble if way is Route.DIRECT else None


def _by_way(
    server: ServiceHealth, pooler: ServiceHealth, trouble: str | None
) -> tuple[ServiceHealth, ServiceHealth]:
    """Say by which way the database is used, for both ends of it."""
    if trouble and pooler.state is State.OK:
        why = f"this process still goes past it, and looks for it every second: {trouble}"
        pooler = attrs.evolve(pooler, state=State.DEGRADED, why=why)
    if server.reachable:
        via = "pooler" if pooler.state is State.OK else "direct"
        server = attrs.evolve(server, via=via)
    return server, pooler


def _known_queues(server: Future[Store]) -> Iterable[str]:
    """The inbox's queues, if the database tells soon."""
    with suppress(NotYet):
        return server.result(_NAMES_WITHIN).queues
    return ()


def _start(question: Callable[[], T]) -> Future[T]:
    """Ask in a thread of its own, which is left behind if it takes too long: it ends by itself."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(question())
        except BaseException as error:  # noqa: BLE001  (raised where the answer is taken)
            future.set_exception(error)

    try:
        Thread(target=run, name="telegram_hybrid health", daemon=True).start()
    except RuntimeError:  # there are no more threads
        run()
    return future
