"""Finding messages: matches first, by the index, then the messages of one page."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from hashlib import blake2b
from typing import Any

import attrs
from sqlalchemy import Connection

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Found, FoundPage, Match, checks
from telegram_hybrid.repositories import reading
from telegram_hybrid.repositories.search import pages
from telegram_hybrid.repositories.search.terms import Term, language, parse, substring
from telegram_hybrid.schema.postgres.sql import array, fetch

#: Messages of one page.
MAX_LIMIT = 1_000
#: Channels of one search.
MAX_CHANNELS = 10_000

_BY_WORDS = """
SELECT at, channel, message, rank FROM "{schema}".search_messages(
    "{schema}".search_query(CAST(:terms AS text[]), CAST(:excluded AS boolean[]),
                            CAST(:alternatives AS integer[]), :language),
    NULL, CAST(:channels AS bigint[]), :since, :sent_at, :channel_id, :message_id, :most)
"""

_BY_SUBSTRING = """
SELECT at, channel, message, rank FROM "{schema}".search_messages(
    NULL, :needle, CAST(:channels AS bigint[]), :since, :sent_at, :channel_id, :message_id, :most)
"""

#: More than any block holds, unless somebody stores so many into it while it is read.
_ALL = 1_000_000


@attrs.frozen(slots=True)
class Search:
    """What is looked for, checked; times are aware, `since` inclusive and `until` exclusive."""

    terms: tuple[Term, ...]
    needle: str | None
    language: str
    channels: tuple[int, ...] | None
    since: datetime
    until: datetime

    @property
    def name(self) -> str:
        """What tells it apart from others, in a cursor."""
        return blake2b(repr(attrs.astuple(self)).encode(), digest_size=9).hexdigest()


def checked(
    text: str,
    *,
    match: Match | str,
    language_name: str,
    channels: Iterable[int] | None,
    since: datetime | None,
    until: datetime | None,
) -> Search:
    """Check what a caller looks for. Raises `InvalidInput` naming the field."""
    by_words = checks.member(Match, "match", match) is Match.WORDS
    ids = None
    if channels is not None:
        found = (checks.channel_id(f"channels[{n}]", one) for n, one in _counted(channels))
        ids = tuple(sorted(set(found)))
    return Search(
        terms=tuple(parse(text)) if by_words else (),
        needle=None if by_words else substring(text),
        language=language("language", language_name),
        channels=ids,
        since=checks.EARLIEST if since is None else checks.instant("since", since),
        until=checks.LATEST if until is None else checks.instant("until", until),
    )


def begin(wanted: Search, cursor: str | None) -> pages.Block:
    """Return where to begin. Raises `InvalidInput` for a cursor of another search, or of none."""
    if cursor is not None:
        return pages.decode(cursor, wanted.name)
    return pages.Block(pages.Place.before(wanted.until))


def search(
    connection: Connection, schema: str, wanted: Search, begin: pages.Block, *, limit: int
) -> FoundPage:
    """Return up to `limit` messages that `wanted` fits, and where the others begin."""
    found: list[Found] = []
    block: pages.Block | None = begin
    while block is not None and len(found) < limit:
        if block.lowest is None:
            matches = _matches(connection, schema, wanted, block.upper, wanted.since, pages.BLOCK)
            block = block.among(matches)
        else:
            since = block.lowest.sent_at
            matches = _matches(connection, schema, wanted, block.upper, since, _ALL)
        unread = block.unread(matches)
        taken = unread[: limit - len(found)]
        keys = {hit.place.key: hit.place.sent_at for hit in taken}
        messages = reading.by_keys(connection, schema, keys) if keys else {}
        found += [
            Found(message, hit.rank)
            for hit in taken
            if (message := messages.get(hit.place.key)) and message.deleted_at is None
        ]
        block = block.read(taken, unread)
    cursor = None if block is None else pages.encode(block, wanted.name)
    return FoundPage(tuple(found), cursor)


def _counted(channels: Iterable[int]) -> Iterable[tuple[int, Any]]:
    for number, one in enumerate(checks.iterable("channels", channels)):
        if number >= MAX_CHANNELS:
            raise InvalidInput("channels", f"more than {MAX_CHANNELS:,}")
        yield number, one


def _matches(
    connection: Connection,
    schema: str,
    wanted: Search,
    below: pages.Place,
    since: datetime,
    most: int,
) -> list[pages.Hit]:
    """Return the newest matches below a place and since a time, newest first."""
    values: dict[str, Any] = {
        **below._asdict(),
        "channels": None if wanted.channels is None else array(wanted.channels),
        "since": since,
        "most": most,
    }
    if wanted.needle is not None:
        rows = fetch(connection, _BY_SUBSTRING, schema, values | {"needle": wanted.needle})
    else:
        values |= {
            "terms": [term.text for term in wanted.terms],
            "excluded": [term.excluded for term in wanted.terms],
            "alternatives": [term.alternative for term in wanted.terms],
            "language": wanted.language,
        }
        rows = fetch(connection, _BY_WORDS, schema, values)
    return [pages.Hit(rank, pages.Place(*place)) for *place, rank in rows]
