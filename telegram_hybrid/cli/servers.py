"""Which servers a command works on: those of the environment, or embedded ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from telegram_hybrid.hybrid import Hybrid, connect
from telegram_hybrid.settings import Settings


@contextmanager
def embedded_settings(data: Path | None) -> Iterator[Settings]:
    """Start servers on `data` (None: temporary), give their settings, and end them."""
    from telegram_hybrid.embedded.servers import Servers

    with Servers(data) as servers:
        yield Settings.from_url(servers.database_url, servers.redis_url, servers.broker_url)


@contextmanager
def store(embedded: Path | None = None) -> Iterator[Hybrid]:
    """Connect to the environment's servers, or to a migrated store in the directory `embedded`."""
    if embedded is None:
        with connect() as hybrid:
            yield hybrid
        return
    with embedded_settings(embedded) as settings, connect(settings) as hybrid:
        hybrid.migrate()
        yield hybrid
