"""What users call to search messages."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Engine

from telegram_hybrid.connect.postgres import reads
from telegram_hybrid.model import FoundPage, Match, checks
from telegram_hybrid.repositories.search import searching


class MessageSearch:
    """Search, as a part of what users call for messages."""

    _engine: Engine
    _schema: str

    def search(
        self,
        text: str,
        *,
        channels: Iterable[int] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 20,
        cursor: str | None = None,
        match: Match | str = Match.WORDS,
        language: str = "simple",
    ) -> FoundPage:
        """Return messages whose text or caption holds what is looked for, deleted ones left out.

        All words of `text` have to be there; "phrases" in quotes, -without, and OR work as in
        search engines. Case does not matter. Chinese, Japanese and Korean words are found inside
        of others. With a `language` of PostgreSQL's ("english", "russian", ...) words are found
        in their other forms, too: what begins with their stem; its stop words are not asked for.
        With `match="substring"` the characters of `text`, three at least, as they stand: fast
        where `Hybrid.index_substrings` was called.

        Ordered in blocks: the newest hundred matches, the best first, then the next hundred. The
        rank of words is PostgreSQL's `ts_rank_cd`, by the length of the message; of a substring,
        how often it is there by that length.

        `since` is inclusive, `until` exclusive; both are compared with `sent_at`. `limit` is at
        most 1,000. `cursor` is that of the page before and goes with the same arguments. Nothing
        is cached. Raises `InvalidInput`.
        """
        wanted = searching.checked(
            text,
            match=match,
            language_name=language,
            channels=channels,
            since=since,
            until=until,
        )
        checks.count("limit", limit, least=1, most=searching.MAX_LIMIT)
        begin = searching.begin(wanted, cursor)
        with reads(self._engine) as connection:
            return searching.search(connection, self._schema, wanted, begin, limit=limit)
