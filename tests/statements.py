"""What this process says to PostgreSQL, listened to at the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg


@contextmanager
def heard(hear: Callable[[str, Any], object]) -> Iterator[None]:
    """Call `hear` with the text and the values of every statement that a cursor executes."""
    execute = psycopg.Cursor.execute

    def executing(self: Any, text: Any, values: Any = None, **options: Any) -> Any:
        hear(text, values)
        return execute(self, text, values, **options)

    psycopg.Cursor.execute = executing  # type: ignore[method-assign]
    try:
        yield
    finally:
        psycopg.Cursor.execute = execute  # type: ignore[method-assign]


@contextmanager
def collected() -> Iterator[list[str]]:
    """The texts of all statements that are sent meanwhile."""
    texts: list[str] = []
    with heard(lambda text, _: texts.append(text)):
        yield texts
