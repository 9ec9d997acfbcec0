"""Health: pings as values, each of which names, times and explains itself.

After svcs' ServicePing (hynek/svcs, `_core.py`), but performed at once and kept as a result. Every
ping opens a connection of its own: an old one that still works proves nothing about a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from time import perf_counter

import attrs
from redis.exceptions import RedisError
from sqlalchemy import Engine, text

from telegram_hybrid.connect import broker, postgres
from telegram_hybrid.connect.redis import directory_of, open_redis
from telegram_hybrid.errors import HybridError
from telegram_hybrid.outbox.claims import backlog
from telegram_hybrid.schema.postgres import migrate
from telegram_hybrid.settings import Settings, without_secret


@attrs.frozen(slots=True, kw_only=True)
class Ping:
    """What one part answered. `seconds` is how long that took, `detail` is for people.

    `degraded`: it works, but not the way it was set up, as `detail` says.
    """

    name: str
    ok: bool
    seconds: float
    version: str | None = None
    detail: str = ""
    degraded: bool = False

    def __str__(self) -> str:
        state = ("degraded" if self.degraded else "ok") if self.ok else "FAILED"
        version = f" {self.version}" if self.version else ""
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.name}{version} {state} in {self.seconds * 1000:.0f} ms{detail}"


@attrs.frozen(slots=True, kw_only=True)
class Health:
    """All pings, and what waits in the outbox (None where the database could not tell).

    `oldest_event_seconds` is the age of the oldest event that is not yet published.
    """

    pings: tuple[Ping, ...]
    outbox_events: int | None = None
    oldest_event_seconds: float | None = None

    @property
    def ok(self) -> bool:
        """Whether every part answered as it should."""
        return all(ping.ok for ping in self.pings)


@attrs.frozen(slots=True)
class _Answer:
    """What a part said of itself."""

    version: str | None = None
    detail: str = ""
    ok: bool = True
    degraded: bool = False


def check(settings: Settings) -> Health:
    """Ping every configured part, one after the other; never raises what a ping can say.

    PostgreSQL and the broker are given up after 5 seconds, Redis after a quarter. No password
    is in the answer (P12).
    """
    engine = postgres.open_engine(settings, deadline=0.0, application_name="telegram_hybrid health")
    waiting: list[tuple[int, datetime | None]] = []
    try:
        pings = [_ping("postgresql", lambda: _postgresql(engine))]
        if pings[0].ok:
            pings.append(_ping("schema", lambda: _schema(engine, settings.database_schema)))
            if pings[1].ok:
                pings.append(_ping("outbox", lambda: _outbox(engine, settings, waiting)))
    finally:
        engine.dispose()
    if settings.redis_url is not None:
        url = settings.redis_url
        pings.append(_ping("redis", lambda: _redis(url)))
    if settings.broker_url is not None:
        address = settings.broker_url
        pings.append(_ping("broker", lambda: _broker(address)))
    events, oldest = waiting[0] if waiting else (None, None)
    return Health(
        pings=tuple(pings),
        outbox_events=events,
        oldest_event_seconds=_age(oldest) if oldest is not None else None,
    )


def _ping(name: str, ask: Callable[[], _Answer]) -> Ping:
    started = perf_counter()
    try:
        answer = ask()
    except HybridError as error:
        answer = _Answer(detail=str(error), ok=False)
    return Ping(
        name=name,
        ok=answer.ok,
        seconds=round(perf_counter() - started, 6),
        version=answer.version,
        detail=answer.detail,
        degraded=answer.degraded,
    )


def _postgresql(engine: Engine) -> _Answer:
    with postgres.translated_errors(engine), engine.connect() as connection:
        version, read_only, now = connection.execute(
            text(
                "SELECT current_setting('server_version'),"
                " current_setting('transaction_read_only') = 'on', clock_timestamp()"
            )
        ).one()
    number, way = str(version).split()[0], _way(engine)
    if read_only:
        return _Answer(number, "read-only: a replica, or default_transaction_read_only", ok=False)
    drift = (datetime.now(UTC) - now).total_seconds()
    clock = f"its clock is {abs(drift):.0f} s off ours" if abs(drift) > 5 else ""
    return _Answer(number, "; ".join(filter(None, (way, clock))))


def _way(engine: Engine) -> str:
    """Say by which way PostgreSQL answered, where there is more than one."""
    way, trouble = postgres.route(engine)
    if way is postgres.Route.POOLER:
        return "through PgBouncer"
    return f"degraded: past PgBouncer, which failed: {trouble}" if trouble else ""


def _schema(engine: Engine, schema: str) -> _Answer:
    with postgres.translated_errors(engine), engine.connect() as connection:
        found = migrate.status(connection, schema=schema)
    if found.is_current:
        return _Answer(found.current, f"schema {schema!r} is current")
    return _Answer(
        found.current,
        f"schema {schema!r} is at {found.current or 'nothing'}, this library needs {found.head}: "
        "run python -m telegram_hybrid migrate up",
        ok=False,
    )


def _outbox(
    engine: Engine, settings: Settings, waiting: list[tuple[int, datetime | None]]
) -> _Answer:
    with postgres.transaction(engine) as connection:
        found = backlog(connection, settings.database_schema)
    waiting.append((found.events, found.oldest))
    if found.oldest is None:
        return _Answer(detail="nothing waits")
    return _Answer(
        detail=f"{found.events:,} events wait, the oldest for {_age(found.oldest):,.0f} s"
    )


def _redis(url: str) -> _Answer:
    client = open_redis(url)
    try:
        version, kind = _redis_server(client.info("server"))
        directory = directory_of(client)
        if directory is None:
            return _Answer(version, kind)
        view = directory.view()
        where = f"{kind}, master {view.master} via {view.via}"
        if not view.degraded:
            return _Answer(version, where)
        return _Answer(version, f"{where}: {view.degraded}", degraded=True)
    except (RedisError, OSError) as error:
        return _Answer(detail=f"{without_secret(url)}: {error}", ok=False)
    finally:
        client.close()


def _redis_server(info: object) -> tuple[str, str]:
    facts = info if isinstance(info, dict) else {}
    if "valkey_version" in facts:
        return str(facts["valkey_version"]), f"Valkey, {facts.get('redis_mode', 'standalone')}"
    return str(facts.get("redis_version", "?")), f"Redis, {facts.get('redis_mode', 'standalone')}"


def _broker(url: str) -> _Answer:
    connection = broker.open_broker(url)
    try:
        with broker.translated_errors(connection):
            if broker.is_amqp(connection):
                facts = connection.connection.server_properties
                return _Answer(str(facts.get("version", "?")), str(facts.get("product", "AMQP")))
            version, kind = _redis_server(connection.default_channel.client.info("server"))
            return _Answer(version, f"{kind}, as a broker for demo and notebooks")
    finally:
        broker.close_quietly(connection)


def _age(instant: datetime) -> float:
    return max(0.0, round((datetime.now(UTC) - instant).total_seconds(), 3))
