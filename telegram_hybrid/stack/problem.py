"""Problem: what is wrong with a file of the deployment, and in which line."""

from __future__ import annotations

import attrs


@attrs.frozen
class Problem:
    """`file` is relative to the deployment, `line` counts from 1 (None: the file as a whole)."""

    file: str
    line: int | None
    text: str
    found_by: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.text} ({self.found_by})"
