"""Search: what is found by which words, page by page, on every kind of PostgreSQL."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from sqlalchemy import Connection, text

from telegram_hybrid import Hybrid
from telegram_hybrid.connect.postgres import reads
from telegram_hybrid.model import FoundPage, Message
from telegram_hybrid.repositories.search import searching
from telegram_hybrid.repositories.search.pages import BLOCK
from telegram_hybrid.schema.postgres.sql import sql
from telegram_hybrid.testing import make_message
from telegram_hybrid.testing.factories import CHANNEL_ID

pytestmark = pytest.mark.integration

TEXTS = [
    "BTC/USDT long now",
    "биткоин растёт быстро",
    "比特币突破十万",
    "Buying and selling countries",
    "don't stop",
    "a 100%_sure thing \\o/",
    "买比",
    "BTC比特币",
    "country music 📈📈📈",
    "the BTC the USDT",
]
# Which of them are found, by what. Broken on purpose: without taking "BTC/USDT" apart, without
# pairs of Chinese characters, with captions left out of the document, and with "%" not escaped.
FOUND: dict[str, tuple[str, dict[str, Any], set[int]]] = {
    "a word, in any case": ("btc", {}, {0, 7, 9}),
    "what stands before a slash": ("usdt", {}, {0, 9}),
    "all words": ("usdt long", {}, {0}),
    "not one word": ("btc -long", {}, {7, 9}),
    "one or the other": ("long OR country", {}, {0, 8}),
    "a phrase": ('"selling countries"', {}, {3}),
    "no phrase": ('"countries selling"', {}, set()),
    "a compound as a phrase": ("btc/usdt", {}, {0}),
    "е for ё": ("растет", {}, {1}),
    "a word of two Chinese characters": ("比特", {}, {2, 7}),
    "more Chinese characters": ("比特币", {}, {2, 7}),
    "a character, wherever": ("币", {}, {2, 7}),
    "the last character": ("万", {}, {2}),
    "the first character": ("买", {}, {6}),
    "pairs that do not follow": ("比币", {}, set()),
    "two scripts": ("BTC比特", {}, {7}),
    "an apostrophe": ("don't", {}, {4}),
    "a backslash and a quote": ("\\o'", {}, {5}),
    "no form of a word": ("countries", {}, {3}),
    "English forms": ("countries", {"language": "english"}, {3, 8}),
    "English forms, from the other": ("country buys", {"language": "english"}, {3}),
    "stop words are not asked for": ("the music", {"language": "english"}, {8}),
    "stop words alone": ("the", {"language": "english"}, set()),
    "Russian forms": ("биткоинами", {"language": "russian"}, {1}),
    "Chinese in a language": ("比特", {"language": "english"}, {2, 7}),
    "a part of a word, in any case": ("OUNTR", {"match": "substring"}, {3, 8}),
    "over the end of a word": ("t lon", {"match": "substring"}, {0}),
    "what LIKE would take for a sign": ("00%_s", {"match": "substring"}, {5}),
    "no sign of LIKE": ("b%c", {"match": "substring"}, set()),
    "a backslash": ("g \\o", {"match": "substring"}, {5}),
    "emoji": ("📈📈📈", {"match": "substring"}, {8}),
    "Chinese characters as they stand": ("特币突", {"match": "substring"}, {2}),
}
CHANNEL = -1001


@pytest.fixture
def filled(hybrid: Hybrid) -> Hybrid:
    """TEXTS, every second one as a caption, over many months."""
    hybrid.messages.save_many(
        make_message(
            channel_id=CHANNEL - number % 3,
            message_id=number,
            sent_at=datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=45 * number),
            text=said if number % 2 else "",
            caption=None if number % 2 else said,
        )
        for number, said in enumerate(TEXTS)
    )
    return hybrid


def ids(page: FoundPage) -> list[int]:
    return [found.message.message_id for found in page]


def paged(hybrid: Hybrid, said: str, limit: int, **options: Any) -> Iterator[FoundPage]:
    """All pages of a search."""
    page = hybrid.messages.search(said, limit=limit, **options)
    yield page
    while page.cursor is not None:
        page = hybrid.messages.search(said, limit=limit, cursor=page.cursor, **options)
        yield page


def check(hybrid: Hybrid) -> None:
    for name, (said, options, expected) in FOUND.items():
        page = hybrid.messages.search(said, **options)
        assert set(ids(page)) == expected, name
        assert len(page) == len(expected), name
        assert page.cursor is None, name
        assert all(0 < found.rank < 1 for found in page), name


def test_what_is_found_by_words_forms_and_characters(filled: Hybrid) -> None:
    check(filled)
    filled.index_substrings()
    filled.index_substrings()  # twice is as well as once
    check(filled)
    filled.index_substrings(False)
    check(filled)


def test_channels_and_times_bound_what_is_found(filled: Hybrid) -> None:
    # Broken on purpose: with `until` inclusive, and with the channels' keys for those of times.
    search = filled.messages.search
    sent = {m.message_id: m.sent_at for m in (found.message for found in search("btc"))}
    assert set(sent) == {0, 7, 9}
    assert set(ids(search("btc", channels=[CHANNEL]))) == {0, 9}
    assert set(ids(search("btc", channels=[CHANNEL - 1, CHANNEL - 2]))) == {7}
    assert ids(search("btc", channels=[])) == []
    assert set(ids(search("btc", since=sent[7]))) == {7, 9}
    assert set(ids(search("btc", until=sent[7]))) == {0}
    assert ids(search("btc", since=sent[7], until=sent[7])) == []
    assert ids(search("btc", since=sent[7], until=sent[7] + timedelta(microseconds=1))) == [7]
    assert set(ids(search("usdt", match="substring", since=sent[7]))) == {9}


def test_edits_and_deletions_are_followed(filled: Hybrid) -> None:
    # Broken on purpose: with `deleted_at` not looked at.
    search = filled.messages.search
    (found,) = search("music")
    message = found.message
    assert message == filled.messages.get(*message.key)
    edited_at = message.sent_at + timedelta(minutes=1)
    filled.messages.save(attrs.evolve(message, caption="no tune", edited_at=edited_at))
    assert ids(search("music")) == []
    assert ids(search("tune")) == [8]
    filled.messages.delete(*message.key)
    assert ids(search("tune")) == []
    assert ids(search("tune", match="substring")) == []


def test_pages_hold_every_match_once_while_messages_come_and_go(hybrid: Hybrid) -> None:
    chance = random.Random(7)
    begin = datetime(2026, 1, 20, tzinfo=UTC)

    def message(number: int) -> Message:
        words = ["signal"] * chance.randint(1, 4) + ["noise"] * chance.randint(0, 9)
        sent_at = begin + timedelta(minutes=number * 97)
        return make_message(message_id=number, sent_at=sent_at, text=" ".join(words))

    kept = [message(number) for number in range(1, 2 * BLOCK + 51)]
    hybrid.messages.save_many(kept)
    found: list[int] = []
    late = 1_000
    for page in paged(hybrid, "signal", 30):
        found += ids(page)
        late += 1
        # In the place of another, which goes: the block's bounds have to stay.
        here = attrs.evolve(message(late), sent_at=page.found[-1].message.sent_at)
        hybrid.messages.save(here)
    assert len(found) == len(set(found))
    assert {one.message_id for one in kept} <= set(found)
    assert {number for number in found[:BLOCK] if number < 1_000} <= set(range(151, 251))
    ranks = [one.rank for one in hybrid.messages.search("signal", limit=BLOCK)]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) > 3


def test_the_longest_text_is_stored_and_found_by_what_it_says(hybrid: Hybrid) -> None:
    # Broken on purpose: without a bound, "string is too long for tsvector" stored nothing.
    chance = random.Random(1)
    text, caption = (
        "".join(chr(chance.randrange(0x20000, 0x2A000)) for _ in range(65_536)) for _ in range(2)
    )
    hybrid.messages.save(make_message(message_id=1, text=text, caption=caption))
    for part in (text[:3], text[-2:], caption[:2]):
        assert len(hybrid.messages.search(part)) == 1
    assert hybrid.messages.get(CHANNEL_ID, 1).caption == caption


def test_clocks_that_are_wrong_lose_nothing(hybrid: Hybrid) -> None:
    # Broken on purpose: with a walk that begins now.
    far = [datetime(1970, 1, 1, tzinfo=UTC), datetime(2099, 12, 31, 23, 59, tzinfo=UTC)]
    same = datetime(2026, 1, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    times = [*far, *[same] * (BLOCK + 20)]
    hybrid.messages.save_many(
        make_message(message_id=number, sent_at=at, text="needle in a stack")
        for number, at in enumerate(times, 1)
    )
    found = [one for page in paged(hybrid, "needle", 50) for one in ids(page)]
    assert sorted(found) == list(range(1, len(times) + 1))
    assert found[BLOCK - 1 :].count(2) == 0
    assert found[-1] == 1


COVER = """
SELECT lo, hi, "{schema}".search_cover(lo, hi)
FROM unnest(CAST(:lo AS bigint[]), CAST(:hi AS bigint[])) AS bounds (lo, hi)
"""


def test_cells_of_time_cover_what_is_asked_for_once_and_no_more(hybrid: Hybrid) -> None:
    # Broken on purpose: with a cell of 36 hours left out, and with one too many.
    chance = random.Random(3)
    bounds = []
    for _ in range(200):
        first = chance.randrange(2**32)
        bounds.append((first, min(first + chance.randrange(2 ** chance.randrange(1, 32)), 2**32)))
    bounds += [(0, 2**32), (0, 0), (4095, 4096), (2**22 - 1, 2**22), (0, 2**23 - 1)]
    values = {"lo": [lo for lo, _ in bounds], "hi": [hi for _, hi in bounds]}
    with reads(hybrid.engine) as connection:
        rows = connection.execute(sql(COVER, hybrid.settings.database_schema), values).all()
    assert len(rows) == len(bounds)
    for lo, hi, keys in rows:
        cells = sorted(
            (key >> 2 << bits, (key >> 2) + 1 << bits)
            for key in keys
            for bits in [(12, 17, 22)[key & 3]]
        )
        assert cells[0][0] == lo >> 12 << 12, (lo, hi)
        assert cells[-1][1] == (hi >> 12) + 1 << 12, (lo, hi)
        assert all(one[1] == two[0] for one, two in itertools.pairwise(cells)), (lo, hi)
        assert len(cells) <= 4 * 64 + (hi - lo >> 22)


def blocks(connection: Connection, schema: str, wanted: searching.Search) -> int:
    """How many blocks of the database it takes to find the first block of matches."""
    values = {
        "terms": [term.text for term in wanted.terms],
        "excluded": [term.excluded for term in wanted.terms],
        "alternatives": [term.alternative for term in wanted.terms],
        "language": wanted.language,
        "channels": None,
        "since": wanted.since,
        "sent_at": wanted.until,
        "channel_id": 0,
        "message_id": 0,
        "most": BLOCK,
    }
    statement = sql("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)" + searching._BY_WORDS, schema)
    for _ in range(2):  # the first of a session reads the catalog, too
        (plan,) = connection.execute(statement, values).scalar_one()
    read: int = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    return read


PLACE = """
SELECT "{schema}".ensure_message_range(now() - interval '21 days', now())
"""
FILL = """
INSERT INTO "{schema}".messages
    (channel_id, message_id, sent_at, version, source, message_type, text, entities, media,
     metadata, status)
SELECT -1001 - n % 20, n, now() - n * interval '1 minute', n, 'bot',
       'channel_post', 'each word' || CASE WHEN n % 1000 = 0 THEN ' rare' ELSE '' END, '[]', '[]',
       '{}', 'received'
FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n
"""
SCANS = """
SELECT sum(seq_scan) FROM pg_stat_xact_user_tables WHERE relname ~ '^(messages_|_hyper)'
"""


def test_what_a_frequent_word_costs_does_not_grow_with_the_store(hybrid: Hybrid) -> None:
    """Nor does any search read all rows, or leave settings behind in the session.

    Broken on purpose: without the cells of time among the conditions the blocks grew as the store
    did, four times, and with a plain join for the messages of a page each search read all rows.
    """
    schema = hybrid.settings.database_schema

    def wanted(said: str) -> searching.Search:
        options = {"match": "words", "language_name": "simple"}
        return searching.checked(said, channels=None, since=None, until=None, **options)

    with hybrid.engine.connect() as connection:
        connection.execute(sql(PLACE, schema))
        costs = []
        for first, last in ((1, 5_000), (5_001, 20_000)):
            connection.execute(sql(FILL, schema), {"first": first, "last": last})
            connection.commit()
            with reads(hybrid.engine) as vacuuming:
                vacuuming.execute(sql('VACUUM ANALYZE "{schema}".messages', schema))
            costs.append([blocks(connection, schema, wanted(said)) for said in ("word", "rare")])
        print(f"a frequent and a rare word: {costs[0]} blocks of 5,000, {costs[1]} of 20,000")
        before = connection.execute(text(SCANS)).scalar_one() or 0
        for said in ("word", "rare", "-rare word", '"each word"', "none"):
            found = searching.begin(wanted(said), None)
            searching.search(connection, schema, wanted(said), found, limit=20)
        assert (connection.execute(text(SCANS)).scalar_one() or 0) == before
        assert connection.execute(text("SHOW enable_seqscan")).scalar_one() == "on"
    (frequent, _), (still, rare) = costs
    assert still < 3 * frequent
    assert rare < 2_000
