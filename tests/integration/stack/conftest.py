"""A written deployment per module; its servers are started by the fixtures that need them."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.stack import NativeStack


@pytest.fixture(scope="module")
def stack() -> Iterator[NativeStack]:
    """Written files for native servers; nothing runs yet."""
    if missing := NativeStack.missing():
        pytest.skip(missing)
    # Not pytest's folder: its path is too long for a unix socket, and root's is closed to others.
    folder = Path(tempfile.mkdtemp(prefix="stack-", dir="/var/tmp"))
    try:
        yield NativeStack(folder)
    finally:
        shutil.rmtree(folder)
