"""An exception at any line of some modules, as of a signal's handler."""

from __future__ import annotations

import gc
import linecache
import sys
from collections.abc import Container
from types import FrameType
from typing import Any


class Interruption(BaseException):
    """Raised at the line `at` of the files, if it is entered; `lines` are counted.

    Not `at_with`: at the end of a block, a tracer alone can come between it and its lock.
    """

    def __init__(self, files: Container[str | None], at: int = 0, *, at_with: bool = True) -> None:
        self.lines, self._files, self._at, self._before = 0, files, at, sys.gettrace()
        self._at_with = at_with

    def __enter__(self) -> None:
        gc.disable()  # the end of what other tests left would be interrupted instead
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)
        gc.enable()

    def _call(self, frame: FrameType, _event: str, _: object) -> Any:
        return self._line if frame.f_code.co_filename in self._files else None

    def _line(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "line" and (self._at_with or not _is_with(frame)):
            self.lines += 1
            if self.lines == self._at:
                raise self
        return self._line


def _is_with(frame: FrameType) -> bool:
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return line.lstrip().startswith("with ")
