"""The files a command was given, looked at before anything is stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from telegram_hybrid.sources import open_source


def check_files(paths: Sequence[Path]) -> int:
    """Read each file up to its first message; return the bytes of all.

    What is no file of messages is refused here, and not an hour into an import. Raises
    `InvalidFile`.
    """
    size = 0
    for path in paths:
        with open_source(path, on_error="skip") as reader:
            next(reader, None)
            size += reader.size
    return size
