"""What the commands write: results to stdout, progress and logs to stderr, one JSON object."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import msgspec


def print_json(value: Any) -> None:
    """Write one JSON object and a newline to stdout."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def log_to_stderr(level: int = logging.WARNING) -> None:
    """Send the library's log records to stderr: its warnings, unless `level` says more."""
    logging.basicConfig(
        stream=sys.stderr, level=level, format="%(levelname)s %(name)s: %(message)s"
    )


def drop_stdout() -> None:
    """Send the rest of stdout nowhere: its reader is gone, and Python would fail to flush it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def bytes_of(count: int) -> str:
    """Return a size for people: 27.3 MB."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
