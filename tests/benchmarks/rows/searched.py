"""search: words, phrases and substrings in a million messages of three months, the newest of today.

The messages are of fifty channels; a twentieth of them is Chinese, a third of the other words is
Cyrillic, and words are as unequally frequent as in a language (Zipf). What is looked for is drawn
from them: words of every frequency and one that is nowhere, two words at once, pairs that stand
side by side, Chinese words, forms of Russian words, one channel, a time in the past. Each call is
another one of these, without a cache; p95 is over all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import accumulate, pairwise
from random import Random
from typing import Any

import attrs
import psycopg

from benchmarks.benchmark import Aim, Benchmark, Contender, Operation, Plan, Role
from benchmarks.recording import Statement, recording, replay, statements
from benchmarks.stand import Stand
from telegram_hybrid.hybrid import Hybrid
from telegram_hybrid.schema.postgres.migrations.versions.r0019_search import INDEX

_MESSAGES = (1_000_000, 40_000, 1_000)
_CHANNELS = 50
_TIME = timedelta(days=90)
_WORDS, _CHINESE_WORDS = 100_000, 20_000
_LATIN, _CYRILLIC = "abcdefghijklmnopqrstuvwxyz", "абвгдежзиклмнопрстуфхцчшщыьэюя"
_SCHEMA = "bench_searched"

#: What is written by hand, so that a million messages are there in minutes: neither keys nor
#: events, which a search does not look at, and no trigger of others.
_PREPARE = (
    "SELECT {s}.ensure_message_range(now() - interval '91 days', now())",
    "ALTER TABLE {s}.messages DISABLE TRIGGER USER",
    "DROP INDEX {s}.messages_search",
)
_COPY = """
COPY {s}.messages (channel_id, message_id, sent_at, version, source, message_type, text, caption,
                   entities, media, metadata, status) FROM STDIN
"""

Query = tuple[str, dict[str, Any]]


class _Language:
    """Words and texts, the same in every run."""

    def __init__(self) -> None:
        self._random = Random(7)
        self.words = [self._word(number) for number in range(_WORDS)]
        self.words[:3] = ["the", "BTC/USDT", "биткоин"]
        self._frequencies = list(accumulate(1 / (n + 2) for n in range(_WORDS)))
        signs = [chr(0x4E00 + n) for n in range(3_000)]
        self.chinese = [
            "".join(self._random.choices(signs, k=self._random.choice((1, 2, 2, 2, 3))))
            for _ in range(_CHINESE_WORDS)
        ]
        self._chinese_frequencies = list(accumulate(1 / (n + 5) for n in range(_CHINESE_WORDS)))

    def _word(self, number: int) -> str:
        letters = _CYRILLIC if number % 3 == 0 else _LATIN
        return "".join(self._random.choices(letters, k=self._random.randint(3, 10)))

    def text(self, number: int) -> str:
        """5 to 80 words."""
        count = self._random.randint(5, 80)
        if number % 20 == 0:
            weights = self._chinese_frequencies
            return "".join(self._random.choices(self.chinese, cum_weights=weights, k=count))
        return " ".join(self._random.choices(self.words, cum_weights=self._frequencies, k=count))

    def queries(self, texts: Sequence[str], now: datetime) -> list[Query]:
        """A hundred things to look for by words."""
        words = self.words
        pairs = [pair for text in texts for pair in pairwise(text.split()) if " " in text]
        ranks = [int(1.35**n) for n in range(30)]  # to the 6,000th word
        singles: list[Query] = [(words[rank], {}) for rank in ranks]
        past: list[Query] = [(words[n], {"until": now - _TIME / 2}) for n in (0, 9, 99, 999, 4_999)]
        found = [*singles, *past, ("nowhereatall", {})]
        found += [(f"{words[n % 7]} {words[5 * n + 3]}", {}) for n in range(12)]
        found += [(f'"{a} {b}"', {}) for a, b in self._random.sample(pairs, min(16, len(pairs)))]
        found += [(self.chinese[3 * n * n], {}) for n in range(16)]
        found += [(words[n] + "ами", {"language": "russian"}) for n in (2, 30, 300, 3_000, 9_999)]
        found += [(words[n], {"channels": [-1001 - n % _CHANNELS]}) for n in (0, 8, 80, 800, 8_000)]
        return found

    def substrings(self) -> list[Query]:
        """Fifty things to look for by characters: the insides of words, and what is nowhere."""
        long = [word for word in self.words if len(word) > 6]
        found = [long[int(1.2**n)][1:-1] for n in range(40)]
        chinese = [self.chinese[5 * n] + self.chinese[n] for n in range(9)]
        said = [*found, *(each for each in chinese if len(each) > 2), "tc/us", "zqzqzq"]
        return [(each, {"match": "substring"}) for each in said]


@attrs.frozen
class _Store:
    hybrid: Hybrid
    psycopg: psycopg.Connection[Any]
    queries: list[Query]


@contextmanager
def _filled(stand: Stand) -> Iterator[_Store]:
    count, language, now = stand.sized(_MESSAGES), _Language(), datetime.now(UTC)
    sample = []
    with stand.hybrid(_SCHEMA) as hybrid, stand.psycopg(prepared=False) as connection:
        for statement in _PREPARE:
            connection.execute(statement.format(s=_SCHEMA))
        with connection.cursor() as cursor, cursor.copy(_COPY.format(s=_SCHEMA)) as copy:
            for number in range(count):
                text = language.text(number)
                if number * 10 % count == 0:
                    sample.append(text)
                at = now - _TIME * ((count - number) / count)
                said = ("", text) if number % 3 == 0 else (text, None)
                row = (-1001 - number % _CHANNELS, number, at, number + 1, "bot", "channel_post")
                copy.write_row((*row, *said, "[]", "[]", '{"views": 1}', "received"))
        connection.execute("SET maintenance_work_mem = '256MB'")
        connection.execute(INDEX.replace("{schema}", _SCHEMA))
        connection.execute(f"VACUUM ANALYZE {_SCHEMA}.messages")
        stand.settle(5.0)
        yield _Store(hybrid, connection, language.queries(sample, now))


def _of_words(stand: Stand) -> _Store:
    return stand.kept("searched", lambda: _filled(stand))


def _of_substrings(stand: Stand) -> _Store:
    store = _of_words(stand)
    store.hybrid.index_substrings()
    store.psycopg.execute(f"VACUUM ANALYZE {_SCHEMA}.messages")
    return attrs.evolve(store, queries=_Language().substrings())


def _drawn(store: _Store) -> partial[list[Query]]:
    """Each as often as the others."""
    return partial(_inputs, store.queries, Random(3))


def _inputs(queries: list[Query], random: Random, calls: int) -> list[Query]:
    shuffled = [*queries] * (calls // len(queries) + 1)
    random.shuffle(shuffled)
    return shuffled[:calls]


def _said(query: Query) -> str:
    return repr(query)


def _search(hybrid: Hybrid, query: Query) -> int:
    text, options = query
    return len(hybrid.messages.search(text, limit=20, **options))


@contextmanager
def _ours(find: Any, stand: Stand) -> Iterator[Operation]:
    store = find(stand)
    yield Operation(call=partial(_search, store.hybrid), inputs=_drawn(store))


@contextmanager
def _by_hand(find: Any, stand: Stand) -> Iterator[Operation]:
    """The statements of each search, heard once and sent again; messages stay rows."""
    store = find(stand)
    heard: dict[str, list[Statement]] = {}
    for query in store.queries:
        with recording() as steps:
            _search(store.hybrid, query)
        heard[_said(query)] = statements(steps)

    def call(query: Query) -> int:
        results = replay(heard[_said(query)], None, store.psycopg)
        return sum(len(rows) for names, rows in results if "metadata" in names)

    yield Operation(call=call, inputs=_drawn(store))


def _row(name: str, what: str, find: Any) -> Benchmark:
    return Benchmark(
        id=name,
        what=what,
        contenders=(
            Contender("messages.search", Role.OURS, partial(_ours, find)),
            Contender(
                "the same statements by hand",
                Role.LIMIT,
                partial(_by_hand, find),
                needs=("psycopg", "psycopg-binary"),
            ),
        ),
        plan=Plan(rounds=12, calls=100, warmup=100),
        quick=Plan(rounds=4, calls=50, warmup=50),
        aim=Aim(limit=1.3, most_p95=0.050),
    )


_WHAT = (
    f"a page of what words and phrases find in {_MESSAGES[0]:,} messages"
    f" ({_MESSAGES[1]:,} with --quick)"
)
ROWS = (
    _row("search-words", _WHAT, _of_words),
    _row(
        "search-substrings",
        "a page of what three characters or more find there, with the index by trigrams",
        _of_substrings,
    ),
)
