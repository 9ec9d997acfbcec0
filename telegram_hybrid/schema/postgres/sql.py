"""Statements as text: written with a "{schema}" in them, compiled once for each schema."""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import TextClause, text


@lru_cache(maxsize=512)
def sql(statement: str, schema: str) -> TextClause:
    """Return `statement` for `schema`, which Settings has checked to be a plain name."""
    return text(statement.replace("{schema}", schema))
