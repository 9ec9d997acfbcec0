"""The pytest plugin: `hybrid`, on real servers, empty for every test.

Servers are started once per session (with xdist: once per worker), on the first test that asks.
Each test has its own database schema, key prefix and exchange. To use servers of your own
instead, set TELEGRAM_HYBRID_TEST_DATABASE_URL, and TELEGRAM_HYBRID_TEST_REDIS_URL and
TELEGRAM_HYBRID_TEST_BROKER_URL if there are such.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    # Imported where they are used: a suite that never asks for `hybrid` must not pay for it.
    from telegram_hybrid.hybrid import Hybrid
    from telegram_hybrid.settings import Settings

_ENV = "TELEGRAM_HYBRID_TEST_"


@pytest.fixture(scope="session")
def telegram_servers() -> Iterator[Settings]:
    """Settings of servers that live as long as the session."""
    from telegram_hybrid.settings import Settings

    if database_url := os.environ.get(f"{_ENV}DATABASE_URL"):
        yield Settings(
            database_url=database_url,
            redis_url=os.environ.get(f"{_ENV}REDIS_URL"),
            broker_url=os.environ.get(f"{_ENV}BROKER_URL"),
        )
        return
    from telegram_hybrid.embedded import Servers

    with Servers() as servers:
        yield Settings(
            database_url=servers.database_url,
            redis_url=servers.redis_url,
            broker_url=servers.broker_url,
        )


@pytest.fixture
def telegram_settings(telegram_servers: Settings) -> Settings:
    """Settings for one test: its own schema, key prefix and exchange on the session's servers."""
    import attrs

    name = f"test_{uuid.uuid4().hex[:12]}"
    return attrs.evolve(
        telegram_servers,
        database_schema=name,
        redis_prefix=name,
        exchange=f"{name}.messages",
    )


@pytest.fixture
def hybrid(telegram_settings: Settings) -> Iterator[Hybrid]:
    """A `Hybrid` with an empty, migrated store of its own; gone after the test."""
    from telegram_hybrid.hybrid import connect

    with connect(telegram_settings) as ready:
        ready.migrate()
        try:
            yield ready
        finally:
            ready.destroy()
