"""The sample that ships with the package: a Desktop export of an invented channel."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def sample_path() -> Path:
    """Return the path of the sample export: 57 posts of "Harbour Street Signals", 47 KB."""
    return Path(str(resources.files("telegram_hybrid.sources") / "sample.json"))
