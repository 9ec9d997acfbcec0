"""Results: queries over channels, answered from the cache for as long as they are true."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Connection, Engine

from telegram_hybrid.cache import Load, Loaded, MessageCache
from telegram_hybrid.connect.postgres import reads
from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import checks
from telegram_hybrid.outbox.locks import look

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Results:
    """Caches what a query gives, until one of its channels is written to."""

    def __init__(self, engine: Engine, schema: str, cache: MessageCache) -> None:
        self._engine = engine
        self._schema = schema
        self._cache = cache

    def read(
        self,
        name: str,
        query: Callable[[Connection], Any],
        *,
        channels: Iterable[int],
        parameters: Any = None,
    ) -> Any:
        """Return what `query(connection)` gives, or gave since any of the channels was written to.

        It must be something that JSON can say, and comes back as JSON gives it: tuples as lists,
        times as text. `name` and `parameters` tell queries apart, so they must hold everything
        that the query depends on, apart from the messages of `channels`. Kept for half a minute
        (`telegram:api:<name>:<hash>`).

        `query` gets a connection on which each statement is a transaction of its own. Raises
        `InvalidInput` for a name that is none, and TypeError for what JSON cannot say.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInput("name", f"{name!r} is not 1 to 64 letters, digits, '_', '.' or '-'")
        ids = [checks.channel_id(f"channels[{at}]", one) for at, one in enumerate(channels)]

        def load(request: Load) -> Loaded:
            with reads(self._engine) as connection:
                quiet = request.guarded and look(connection, self._schema, ids)[1]
                return Loaded(query(connection), quiet=quiet)

        return self._cache.result(name, parameters, ids, load)
