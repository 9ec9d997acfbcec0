"""PostgreSQL's and PgBouncer's health: each asked on a connection of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import attrs
from sqlalchemy import Connection, Row, make_url, text

from telegram_hybrid.connect import postgres
from telegram_hybrid.connect.postgres.refusals import has_answered
from telegram_hybrid.errors import DatabaseError, HybridError
from telegram_hybrid.health.values import Node, Outbox, ServiceHealth, State
from telegram_hybrid.outbox import dead_letters, inbox
from telegram_hybrid.outbox.claims import backlog
from telegram_hybrid.schema.postgres import migrate
from telegram_hybrid.settings import Settings

#: Seconds by which the database's clock may differ from ours; ages and leases tell times of both.
DRIFT = 5.0


@attrs.frozen(slots=True)
class Store:
    """The server, what waits in its outbox, and the queues that its inbox knows."""

    service: ServiceHealth
    outbox: Outbox | None = None
    queues: frozenset[str] = frozenset()


def ask_server(settings: Settings, seconds: float) -> Store:
    """Ask the server: past the pooler, or through it where that is the only way left.

    `seconds` limits the wait for each answer.
    """
    try:
        return _store(settings, settings.database_url, seconds)
    except HybridError as error:
        lost = str(error)
    if settings.pooler_url is not None:
        try:
            store = _store(settings, settings.pooler_url, seconds)
        except HybridError as error:
            lost = f"{lost}; and through PgBouncer: {error}"
        else:
            why = f"PgBouncer alone reaches it, so migrations and new partitions fail: {lost}"
            return attrs.evolve(store, service=_worse(store.service, State.DEGRADED, why))
    return Store(ServiceHealth(name="postgresql", state=State.DOWN, why=lost))


def ask_pooler(settings: Settings, seconds: float) -> ServiceHealth:
    """Ask PgBouncer for an answer of the server behind it; `seconds` limits the wait for it."""
    url = settings.pooler_url
    if url is None:
        return ServiceHealth(name="pgbouncer", state=State.NOT_CONFIGURED)
    address, started = postgres.address(make_url(url)), perf_counter()
    try:
        with _connection(settings, url, seconds) as connection:
            connection.execute(text("SELECT 1"))
    except HybridError as error:
        return ServiceHealth(
            name="pgbouncer",
            state=State.DEGRADED,
            reachable=has_answered(error),
            why=f"connections go past it: {error}".replace("PostgreSQL at", "PgBouncer at"),
            address=address,
        )
    return ServiceHealth(
        name="pgbouncer",
        state=State.OK,
        reachable=True,
        seconds=round(perf_counter() - started, 6),
        address=address,
    )


def _store(settings: Settings, url: str, seconds: float) -> Store:
    schema, started = settings.database_schema, perf_counter()
    with _connection(settings, url, seconds) as connection:
        facts = connection.execute(text(_FACTS)).one()
        service = _server(facts, url, perf_counter() - started)
        if service.role == "primary":
            service = attrs.evolve(service, nodes=_standbys(connection))
        try:
            found = migrate.status(connection, schema=schema)
            if found.current is None:
                why = f"schema {schema!r} is missing: run python -m telegram_hybrid migrate up"
                return Store(_worse(service, State.DOWN, why))
            if not found.is_current:
                why = (
                    f"schema {schema!r} is at {found.current}, this library is made for "
                    f"{found.head}: run python -m telegram_hybrid migrate up"
                )
                service = _worse(service, State.DEGRADED, why)
            with postgres.translated_errors(connection.engine):
                return Store(service, _outbox(connection, schema), _queues(connection, schema))
        except DatabaseError as error:
            # It answers, but what is ours there does not: locked, not permitted, of another time.
            return Store(_worse(service, State.DOWN, str(error)))


@contextmanager
def _connection(settings: Settings, url: str, seconds: float) -> Iterator[Connection]:
    """Give a connection by this way alone."""
    alone = attrs.evolve(settings, database_url=url, pooler_url=None, statement_timeout=seconds)
    name = "telegram_hybrid health"
    engine = postgres.open_engine(alone, pooled=False, deadline=0.0, application_name=name)
    try:
        with postgres.reads(engine) as connection:
            yield connection
    finally:
        engine.dispose()


def _server(facts: Row[Any], url: str, seconds: float) -> ServiceHealth:
    version, replica, read_only, now, lag = tuple(facts)
    service = ServiceHealth(
        name="postgresql",
        state=State.OK,
        reachable=True,
        seconds=round(seconds, 6),
        address=postgres.address(make_url(url)),
        version=str(version).split()[0],
        role="replica" if replica else "primary",
        lag_seconds=lag,
    )
    drift = abs((datetime.now(UTC) - now).total_seconds())
    if drift > DRIFT:
        service = _worse(service, State.DEGRADED, f"its clock is {drift:,.0f} s off ours")
    if replica:
        return _worse(service, State.DOWN, "a replica, which takes no writes: name the primary")
    if read_only:
        return _worse(service, State.DOWN, "takes no writes: default_transaction_read_only is on")
    return service


def _standbys(connection: Connection) -> tuple[Node, ...]:
    found = []
    for address, state, lag_seconds, lag_bytes in connection.execute(text(_STANDBYS)):
        why = "" if state == "streaming" else f"its state is {state}"
        if state is None:
            why = "its state is told to members of pg_read_all_stats only"
        found.append(
            Node(
                address=address or "?",
                reachable=state in ("streaming", None),
                lag_seconds=lag_seconds,
                lag_bytes=lag_bytes,
                why=why,
            )
        )
    return tuple(found)


def _outbox(connection: Connection, schema: str) -> Outbox:
    waiting = backlog(connection, schema)
    age = None
    if waiting.oldest is not None:
        age = max(0.0, round((datetime.now(UTC) - waiting.oldest).total_seconds(), 3))
    return Outbox(
        events=waiting.events,
        oldest_seconds=age,
        dead_letters=dead_letters.count(connection, schema),
    )


def _queues(connection: Connection, schema: str) -> frozenset[str]:
    return frozenset(inbox.queues(connection, schema))


def _worse(service: ServiceHealth, state: State, why: str) -> ServiceHealth:
    worst = State.DOWN if State.DOWN in (state, service.state) else state
    return attrs.evolve(service, state=worst, why="; ".join(filter(None, (service.why, why))))


# A replica that has replayed all it received is behind only if it receives nothing any more.
_FACTS = """
SELECT current_setting('server_version'),
    pg_is_in_recovery(),
    current_setting('transaction_read_only') = 'on',
    clock_timestamp(),
    CASE
        WHEN NOT pg_is_in_recovery() THEN NULL
        WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()
            AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0.0::float8
        ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8
    END
"""

# replay_lag is NULL for a standby that has nothing to replay, and for whoever may not see it.
_STANDBYS = """
SELECT concat_ws(' at ', nullif(application_name, ''), host(client_addr)),
    state,
    CASE WHEN state IS NOT NULL
        THEN coalesce(extract(epoch FROM replay_lag), 0)::float8
    END,
    pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint
FROM pg_stat_replication
WHERE application_name IS DISTINCT FROM 'pg_basebackup'
ORDER BY 1
"""
