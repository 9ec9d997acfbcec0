"""What people write into a search box, taken apart."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from telegram_hybrid import Settings, connect
from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.repositories.search.terms import MAX_SEARCH, Term, parse


def said(text: str) -> list[tuple[str, bool, int]]:
    return [(term.text, term.excluded, term.alternative) for term in parse(text)]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("buy btc", [("buy", False, 0), ("btc", False, 0)]),
        ('"take profit" btc', [("take profit", False, 0), ("btc", False, 0)]),
        ("buy -btc", [("buy", False, 0), ("btc", True, 0)]),
        ('buy -"stop loss"', [("buy", False, 0), ("stop loss", True, 0)]),
        ("a OR b c", [("a", False, 0), ("b", False, 1), ("c", False, 1)]),
        ("a or -b", [("a", False, 0), ("b", True, 1)]),
        ('a "or" b', [("a", False, 0), ("or", False, 0), ("b", False, 0)]),
        ("BTC/USDT stop-loss", [("BTC/USDT", False, 0), ("stop-loss", False, 0)]),
        ('a "not closed', [("a", False, 0), ("not closed", False, 0)]),
        ("📈 a - !! b", [("a", False, 0), ("b", False, 0)]),
        ('a"b"c', [("a", False, 0), ("b", False, 0), ("c", False, 0)]),
    ],
)
def test_words_phrases_exclusions_and_alternatives(
    text: str, terms: list[tuple[str, bool, int]]
) -> None:
    # Broken on purpose: with a quoted "or" taken for the operator, and with signs kept as terms.
    assert said(text) == terms


def test_a_term_is_what_it_says() -> None:
    assert parse("-b a")[0] == Term("b", excluded=True, alternative=0)


BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "no text": ("text", {"text": None}),
    "nothing": ("text", {"text": "  "}),
    "signs alone": ("text", {"text": "📈 !!"}),
    "exclusions alone": ("text", {"text": "-a -b"}),
    "a NUL": ("text", {"text": "a\0b"}),
    "a lone surrogate": ("text", {"text": "a\ud800"}),
    "a book": ("text", {"text": "a" * (MAX_SEARCH + 1)}),
    "too many words": ("text", {"text": "a " * 51}),
    "a short substring": ("text", {"text": "ab", "match": "substring"}),
    "a blank substring": ("text", {"text": "     ", "match": "substring"}),
    "no way to match": ("match", {"match": "regex"}),
    "no language": ("language", {"language": "klingon"}),
    "code for a language": ("language", {"language": "simple'; DROP TABLE x"}),
    "channel zero": ("channels[1]", {"channels": [-1, 0]}),
    "no channels": ("channels", {"channels": 5}),
    "a naive time": ("since", {"since": datetime(2026, 1, 1)}),
    "a date as text": ("until", {"until": "2026-01-01"}),
    "limit zero": ("limit", {"limit": 0}),
    "a large limit": ("limit", {"limit": 1_001}),
    "no cursor": ("cursor", {"cursor": "nonsense"}),
    "a number as cursor": ("cursor", {"cursor": 5}),
}


@pytest.mark.parametrize(("field", "arguments"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_before_the_database_is_asked(
    field: str, arguments: dict[str, Any]
) -> None:
    # Nothing listens there: whoever connects fails otherwise.
    settings = Settings.from_url("postgresql://nobody@127.0.0.1:1/none")
    with connect(settings) as hybrid, pytest.raises(InvalidInput) as refused:
        hybrid.messages.search(**({"text": "a"} | arguments))
    assert refused.value.field == field
