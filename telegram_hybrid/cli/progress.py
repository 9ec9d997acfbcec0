"""Progress on a terminal's stderr; where stderr is no terminal, nothing at all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import rich.progress

Unit = Literal["bytes", "messages", "partitions"]


class Progress:
    """Named bars of bytes or messages; without a display it only remembers where they are."""

    def __init__(self, display: rich.progress.Progress | None) -> None:
        self._display = display
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._at: dict[str, float] = {}

    def begin(self, name: str, total: float | None, *, unit: Unit = "messages") -> None:
        """Show a bar; a total of None is one that is not known yet."""
        self._at[name] = 0
        if self._display is not None:
            self._tasks[name] = self._display.add_task(name, total=total, unit=unit)

    def at(self, name: str) -> float:
        """Return where a bar stands."""
        return self._at[name]

    def move(self, name: str, completed: float, total: float | None = None) -> None:
        """Set a bar to `completed`, and tell its total once that is known."""
        self._at[name] = completed
        if self._display is not None:
            self._display.update(self._tasks[name], completed=completed, total=total)


@contextmanager
def progress() -> Iterator[Progress]:
    """Show bars on stderr for the time of the block, if a person is looking."""
    if not sys.stderr.isatty():
        yield Progress(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Display
    from rich.text import Text

    from telegram_hybrid.cli.output import bytes_of

    class Amount(ProgressColumn):
        """How far, of how much, in the bar's own unit."""

        def render(self, task: Task) -> Text:
            shown = bytes_of if task.fields["unit"] == "bytes" else "{:,.0f}".format
            done = shown(int(task.completed))
            return Text(done if task.total is None else f"{done} of {shown(int(task.total))}")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        Amount(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Display(*columns, console=console, refresh_per_second=8) as display:
        yield Progress(display)
