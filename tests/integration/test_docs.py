"""The pages do what they say: their code runs, and prints what they show.

Python blocks run in one interactive session per page, line by line as a reader would paste them;
a block with a title is saved under that name instead. Lines with a `$` in console blocks run in a
shell. A `text` block that follows is what a Python block prints. Times, versions and the counters
of the cache may differ; nothing else. Blocks of other languages are for reading.
"""

from __future__ import annotations

import code
import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import typer

from telegram_hybrid.cli import app
from telegram_hybrid.settings import Settings

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r'^```(\w*)(?: title="(.*)")?$')
_TIME_OR_VERSION = re.compile(r"\d+(?:\.\d+)+")
_COUNTED_BY_CHANCE = re.compile(r"^(?:cache|get, from) .*")  # a fill may be refused


@attrs.frozen
class Block:
    """A fenced block: `place` is file and line, for the failure."""

    place: str
    language: str
    title: str | None
    lines: list[str]


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    lines = iter(enumerate((ROOT / page).read_text().splitlines(), 1))
    for number, line in lines:
        if fence := _FENCE.match(line):
            body = []
            for _, inner in lines:
                if inner == "```":
                    break
                body.append(inner)
            yield Block(f"{page}:{number}", fence[1], fence[2], body)


class Session(code.InteractiveConsole):
    """A `python` session that raises what a block raises."""

    def showtraceback(self) -> None:
        raise

    def showsyntaxerror(self, *args: object, **kwargs: object) -> None:
        raise

    def paste(self, block: Block) -> str:
        """Run a block line by line; return what it printed."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            for line in [*block.lines, ""]:
                unfinished = self.push(line)
        assert not unfinished, f"{block.place}: the block ends in the middle of a statement"
        return printed.getvalue()


def shell(block: Block, folder: Path) -> tuple[str, str]:
    """Run the commands of a console block; return what they print and what the page says."""
    printed, said = "", ""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    inherited = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    environment = inherited | {"PATH": path, "COLUMNS": "80", "TELEGRAM_HYBRID_CI": ""}
    for line in block.lines:
        if not line.startswith("$ "):
            said += line + "\n"
            continue
        done = subprocess.run(
            ["bash", "-c", line[2:]], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{block.place}: {line}\n{done.stdout}{done.stderr}"
        printed += done.stdout
    return printed, said


def comparable(text: str) -> list[str]:
    """Return the lines that hold anything, without what differs from run to run."""
    lines = (
        " ".join(_TIME_OR_VERSION.sub("#", _COUNTED_BY_CHANCE.sub("#", line)).split())
        for line in text.splitlines()
    )
    return [line for line in lines if line]


PAGES = [
    "docs/cache.md",
    "README.md",
    "docs/index.md",
    "docs/tutorial.md",
    "docs/life.md",
    "docs/events.md",
    "docs/operating.md",
    "docs/stack.md",
    "docs/testing.md",
]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_prints_what_it_shows(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail: with "57 messages" as 58 in the page, with another id asked of `seen`, with a
    # blank line inside a `with` block, and with a command renamed.
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "displayhook", lambda _value: None)
    monkeypatch.setitem(sys.modules, "signals", None)
    del sys.modules["signals"]
    session = Session({"__name__": "__console__"})
    ran = 0
    found = list(blocks(page))
    try:
        for block, following in zip(found, [*found[1:], None], strict=True):
            if block.language == "console":
                printed, said = shell(block, tmp_path)
            elif block.language == "python" and block.title is not None:
                (tmp_path / block.title).write_text("\n".join([*block.lines, ""]))
                continue
            elif block.language == "python":
                printed = session.paste(block)
                shown = following is not None and following.language == "text"
                said = "\n".join(following.lines) if following is not None and shown else ""
            else:
                continue
            ran += 1
            assert comparable(printed) == comparable(said), block.place
    finally:
        if hybrid := session.locals.get("hybrid"):
            hybrid.close()  # type: ignore[attr-defined]
    assert ran


def rows(page: str) -> dict[str, list[str]]:
    """Return the table rows of a page by the code in their first cell."""
    lines = (ROOT / page).read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return {match[1]: row[1:] for row in cells if (match := re.match(r"`(.*?)`", row[0]))}


def test_every_setting_is_told_with_its_default() -> None:
    # Seen to fail: with a default changed in the page, and with a row taken out.
    told = rows("docs/operating.md")
    for field in attrs.fields(Settings):
        default = "" if field.default is attrs.NOTHING else f"`{field.default}`"
        assert told[field.name][0] == default, field.name


def test_every_variable_is_told_and_no_other() -> None:
    # Seen to fail: with a variable misspelled in the page.
    class Environment(dict[str, str]):
        asked: ClassVar[set[str]] = set()

        def get(self, name: str, default: Any = None) -> Any:
            self.asked.add(name)
            return super().get(name, default)

    hosts = {f"TELEGRAM_{server}_HOST": "h" for server in ("DB", "PGBOUNCER", "REDIS", "RABBITMQ")}
    hosts["TELEGRAM_REDIS_SENTINELS"] = "h:26379"
    Settings.from_env(Environment(hosts))
    page = (ROOT / "docs/operating.md").read_text()
    told = set(re.findall(r"`(TELEGRAM_\w+)`", page))
    assert Environment.asked == {name for name in told if not name.startswith("TELEGRAM_HYBRID")}


def test_every_command_is_told_with_its_options() -> None:
    # Seen to fail: with an option taken out of the page, and with one invented.
    told = rows("docs/operating.md")

    def check(command: Any, name: str) -> None:
        for inner, subcommand in getattr(command, "commands", {}).items():
            check(subcommand, f"{name} {inner}".strip())
        if not hasattr(command, "commands"):
            options = {p.opts[0] for p in command.params if p.opts[0].startswith("--")} - {"--help"}
            (row,) = [
                row for key, row in told.items() if re.fullmatch(rf"{name}( \[?[A-Z].*)?", key)
            ]
            assert set(re.findall(r"--[a-z-]+", row[0])) == options, name

    check(typer.main.get_command(app), "")
