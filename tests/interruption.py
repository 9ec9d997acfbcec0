"""An exception at any line of some modules, as of a signal's handler."""

from __future__ import annotations

import sys
from collections.abc import Container
from types import FrameType
from typing import Any


class Interruption(BaseException):
    """Raised at the line `at` of the files, if it is entered; `lines` are counted."""

    def __init__(self, files: Container[str | None], at: int = 0) -> None:
        self.lines, self._files, self._at, self._before = 0, files, at, sys.gettrace()

    def __enter__(self) -> None:
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _call(self, frame: FrameType, _event: str, _: object) -> Any:
        return self._line if frame.f_code.co_filename in self._files else None

    def _line(self, _frame: FrameType, event: str, _: object) -> Any:
        self.lines += event == "line"
        if event == "line" and self.lines == self._at:
            raise self
        return self._line
