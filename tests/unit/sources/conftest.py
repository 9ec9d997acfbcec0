"""Where the shared test data lies, and a writer of files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(
    os.environ.get("TELEGRAM_HYBRID_SHARED_DATA")
    or Path(__file__).resolve().parents[4] / "shared" / "data"
)


@pytest.fixture
def shapes() -> Path:
    folder = SHARED / "shapes"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set TELEGRAM_HYBRID_SHARED_DATA to the shared test data")
    return folder


@pytest.fixture
def exports() -> list[Path]:
    folder = SHARED / "desktop_export"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set TELEGRAM_HYBRID_SHARED_DATA to the shared test data")
    return sorted(folder.glob("*/result.json"))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], Path]:
    """Write a value as JSON, or bytes as they are, and return the path."""

    def _write(content: Any, name: str = "result.json") -> Path:
        path = tmp_path / name
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        path.write_bytes(data)
        return path

    return _write
