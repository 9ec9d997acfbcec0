"""What people write into a search box, as terms: pure functions, no I/O.

The syntax is that of PostgreSQL's `websearch_to_tsquery`: words that all have to be there,
"phrases in quotes", -without, and OR between alternatives.
"""

from __future__ import annotations

import re
from typing import Any

import attrs

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import checks

#: Characters of what is looked for.
MAX_SEARCH = 1_000
#: Words and phrases of one search.
MAX_TERMS = 50
#: The fewest characters of a substring: below, no index can tell messages apart.
LEAST_SUBSTRING = 3

#: Text search configurations of every supported PostgreSQL.
LANGUAGES = (
    "simple",
    "arabic",
    "armenian",
    "basque",
    "catalan",
    "danish",
    "dutch",
    "english",
    "finnish",
    "french",
    "german",
    "greek",
    "hindi",
    "hungarian",
    "indonesian",
    "irish",
    "italian",
    "lithuanian",
    "nepali",
    "norwegian",
    "portuguese",
    "romanian",
    "russian",
    "serbian",
    "spanish",
    "swedish",
    "tamil",
    "turkish",
    "yiddish",
)

_TERM = re.compile(r'(?P<minus>-?)(?:"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))')


@attrs.frozen(slots=True)
class Term:
    """A word or phrase, whether it has to be missing, and of which alternative it is a part."""

    text: str
    excluded: bool
    alternative: int


def parse(text: Any) -> list[Term]:
    """Take a search apart. Raises `InvalidInput` for what PostgreSQL cannot hold or find.

    What holds no letter and no digit is left out: it is in no index of words.
    """
    said = checks.text("text", text, most=MAX_SEARCH)
    terms: list[Term] = []
    alternative = 0
    for each in _TERM.finditer(said):
        word = each["phrase"] if each["phrase"] is not None else each["word"]
        if each["word"] is not None and not each["minus"] and word.lower() == "or":
            alternative += 1
        elif any(character.isalnum() for character in word):
            terms.append(Term(word, bool(each["minus"]), alternative))
    if len(terms) > MAX_TERMS:
        raise InvalidInput("text", f"{len(terms)} words and phrases; at most {MAX_TERMS}")
    if all(term.excluded for term in terms):
        raise InvalidInput(
            "text",
            "only says what to leave out"
            if terms
            else 'no word to look for; signs and emoji are found by match="substring"',
        )
    return terms


def substring(text: Any) -> str:
    """Accept a substring to look for. Raises `InvalidInput` for fewer than 3 characters."""
    said = checks.text("text", text, most=MAX_SEARCH)
    if len(said.strip()) < LEAST_SUBSTRING:
        raise InvalidInput("text", f"a substring of fewer than {LEAST_SUBSTRING} characters")
    return said


def language(field: str, value: Any) -> str:
    """Accept the name of one of PostgreSQL's own configurations."""
    if value not in LANGUAGES:
        raise InvalidInput(field, f"{value!r} is none of {', '.join(LANGUAGES)}")
    return str(value)
