"""Engines and their router, before anything connects."""

import time
from typing import Any

import psycopg
import pytest

from telegram_hybrid.connect import postgres
from telegram_hybrid.connect.postgres import router as routers
from telegram_hybrid.connect.postgres.routes import Route
from telegram_hybrid.settings import Settings

POOLED = Settings(database_url="postgresql://db/x", pooler_url="postgresql://pooler/x")


@pytest.mark.parametrize("name", ["password", "sslpassword"])
def test_a_password_among_the_options_shows_nowhere(name: str) -> None:
    # Broken on purpose: with the query left in the URL, the engine shows it (P12).
    settings = Settings(database_url=f"postgresql://ann@db/x?{name}=hunter2")
    engine = postgres.open_engine(settings)
    router = engine.get_execution_options()["telegram_hybrid_router"]
    assert "hunter2" not in f"{engine!r} {engine.url!r} {router.ways!r}"  # nor with its options
    assert router.ways[Route.DIRECT].options[name] == "hunter2"


@pytest.mark.parametrize(
    ("error", "heard", "serving"),
    [
        (psycopg.errors.ConnectionTimeout("late"), True, Route.POOLER),
        (psycopg.errors.ConnectionTimeout("late"), False, Route.DIRECT),
        (psycopg.OperationalError("refused"), True, Route.DIRECT),
    ],
)
def test_a_pooler_that_answers_others_is_not_given_up_for_a_slow_login(
    monkeypatch: pytest.MonkeyPatch, error: psycopg.Error, heard: bool, serving: Route
) -> None:
    # Broken on purpose: without the question in _ask_whether_pooler_lives the first one is left.
    engine = postgres.open_engine(POOLED)
    router = engine.get_execution_options()["telegram_hybrid_router"]
    assert router.routes.claim_doubt(time.monotonic())
    if heard:
        router.routes.heard(time.monotonic())

    def login(*_: object) -> None:
        raise error

    monkeypatch.setattr(router, "_login", login)
    router._ask_whether_pooler_lives()
    assert router.routes.serving is serving
    postgres.shut(engine)


def test_where_no_thread_can_be_started_whoever_is_next_asks_for_the_pooler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Seen to fail: a call that could have gone past the pooler raised RuntimeError, and nobody
    # looked for the pooler, or doubted it, ever again.
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(routers.Thread, "start", refuse)
    engine = postgres.open_engine(POOLED)
    router = engine.get_execution_options()["telegram_hybrid_router"]
    waiting: Any = object()
    router._watch(waiting, routers._Trip(Route.POOLER, 0, 0), routers.DOUBT_AFTER * 2)
    assert router.routes.claim_doubt(time.monotonic() + routers.PROBE_EVERY)
    router.routes.failed(Route.POOLER, "refused")
    router._search()
    assert router.routes.claim_search()
    postgres.shut(engine)
