"""`open_embedded`: a Hybrid on servers that it starts and stops itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from telegram_hybrid.embedded.servers import Servers
from telegram_hybrid.hybrid import Hybrid
from telegram_hybrid.settings import Settings


def open_embedded(data: Path | str | None = None, **settings: Any) -> Hybrid:
    """Start the servers, bring the schema up to date and return a `Hybrid` on them.

    With `data` (a directory) everything is kept for the next time; without, it is gone after
    `close`. `settings` replace fields of `Settings`, such as `window_size=500`.
    Raises `EmbeddedError` or `MissingExtra`.
    """
    servers = Servers(data).start()
    try:
        urls = Settings(
            database_url=servers.database_url,
            redis_url=servers.redis_url,
            broker_url=servers.broker_url,
        )
        hybrid = Hybrid(attrs.evolve(urls, **settings), on_close=servers.stop)
        hybrid.migrate()
    except BaseException:
        servers.stop()
        raise
    return hybrid
