"""`changes`: what happened to messages, as lines of JSON, from where the last run ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from telegram_hybrid.cli.errors import OK, explain, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telegram_hybrid.hybrid import Hybrid
    from telegram_hybrid.model import Changes, MessageChange


def command(
    cursor_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Go on where this file says, and note there what was printed."
        ),
    ] = None,
    now: Annotated[
        bool,
        typer.Option("--now", help="Begin with what happens from now on, if there is no cursor."),
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until SIGTERM or Ctrl-C instead of to the end.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.01, help="With --follow: look so often (seconds).")
    ] = 1.0,
    channel: Annotated[
        list[int] | None,
        typer.Option(metavar="ID", help="Of this channel; may be repeated. Of all unless given."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Changes of one page.")] = 500,
) -> int:
    """Print every arrival, edit, change of status and deletion once, each a line of JSON.

    Without a cursor it begins with the oldest change that is kept. The cursor file is replaced
    after each page, when its lines are out: a run that is killed repeats one page at most, and
    skips nothing. `message` is the message as it is now, defaults left out. With --follow a
    database that is away is waited for.

    Example:

        python -m telegram_hybrid changes --follow --cursor-file changes.cursor
    """
    import signal

    from telegram_hybrid.cli.servers import store
    from telegram_hybrid.repositories.changes import NOW

    cursor = _read(cursor_file) or (NOW if now else None)
    ending = {signal.SIGTERM, signal.SIGINT} if follow else set()
    # Waited for, never handled: they end it between two pages.
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        with store() as hybrid:
            for page in _pages(hybrid, cursor, channel, limit, patient=follow):
                if page is not None:
                    _print(page)
                    _write(cursor_file, page.cursor)
                wait = 0.0 if page is not None and page.more else every
                if follow and signal.sigtimedwait(ending, wait) is not None:
                    break
                if not follow and page is not None and not page.more:
                    break
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)
    return OK


def _pages(
    hybrid: Hybrid, cursor: str | None, channels: list[int] | None, limit: int, *, patient: bool
) -> Iterator[Changes | None]:
    """Yield page after page; None, if `patient`, for one that could not be had at this moment."""
    from telegram_hybrid.errors import ServiceError

    told = ""
    while True:
        try:
            page = hybrid.messages.changes(cursor, limit=limit, channels=channels)
        except ServiceError as error:
            if not (patient and error.retryable):
                raise
            if told != (told := explain(error)):
                say(told)
            yield None
        else:
            told, cursor = "", page.cursor
            yield page


def _print(page: Changes) -> None:
    import sys

    import msgspec

    sys.stdout.writelines(msgspec.json.encode(_line(each)).decode() + "\n" for each in page)
    sys.stdout.flush()


def _line(change: MessageChange) -> dict[str, object]:
    import msgspec

    message = change.message
    return {
        "type": change.type,
        "channel_id": change.key.channel_id,
        "message_id": change.key.message_id,
        "version": change.version,
        "status": change.status,
        "changed_at": change.changed_at,
        "message": None if message is None else msgspec.Raw(message.to_json()),
    }


def _read(path: Path | None) -> str | None:
    """The cursor in the file; None without a file. Raises `InvalidInput` naming the file."""
    from telegram_hybrid.errors import InvalidInput
    from telegram_hybrid.repositories.positions import Positions

    try:
        text = path.read_text() if path is not None else None
        if text is not None:
            Positions.decode(text.rstrip("\n"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("--cursor-file", f"cannot be read: {error}") from error
    except InvalidInput as error:
        raise error.at(str(path)) from error
    return None if text is None else text.rstrip("\n")


def _write(path: Path | None, cursor: str) -> None:
    """Replace the file at once: whoever kills us leaves the old cursor or the new one."""
    from telegram_hybrid.errors import InvalidInput

    if path is None:
        return
    fresh = path.with_name(f"{path.name}.new")
    try:
        with fresh.open("w") as file:
            file.write(f"{cursor}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise InvalidInput("--cursor-file", f"cannot be written: {error}") from error
