"""`import`: files of messages into the configured servers, or into an embedded store."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from telegram_hybrid.cli.errors import OK

if TYPE_CHECKING:
    from datetime import tzinfo

    from telegram_hybrid.cli.imports import Imported


class OnError(StrEnum):
    """What to do with a message that cannot be stored."""

    RAISE = "raise"
    SKIP = "skip"


def command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="Telegram Desktop exports (result.json) or Bot API updates."
        ),
    ],
    embedded: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Into a store in this directory, on servers started for it."
        ),
    ] = None,
    on_error: Annotated[
        OnError, typer.Option(help="A message that cannot be stored: stop, or count and go on.")
    ] = OnError.RAISE,
    timezone: Annotated[
        str,
        typer.Option(metavar="ZONE", help="Of dates without a zone, in exports before June 2022."),
    ] = "UTC",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Store the messages of files, each once, in bounded memory.

    What is committed stays: after an error or Ctrl-C, run it again and it resumes, counting what
    is there as duplicates.

    Example:

        python -m telegram_hybrid import --on-error skip ChatExport/result.json
    """
    from telegram_hybrid.cli.files import check_files
    from telegram_hybrid.cli.imports import import_files
    from telegram_hybrid.cli.output import log_to_stderr, print_json
    from telegram_hybrid.cli.servers import store

    log_to_stderr()
    zone = _zone(timezone)
    check_files(files)
    with store(embedded) as hybrid:
        found = import_files(hybrid, files, on_error=on_error.value, timezone=zone)
    if json:
        print_json(found)
    else:
        _print_counts(found)
    return OK


def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise typer.BadParameter(
            f"--timezone: {name!r} is no zone known here; expected a name such as Europe/Berlin "
            "(pip install tzdata if this system has none)"
        ) from error


def _print_counts(found: Imported) -> None:
    typer.echo(
        f"{found.messages_read:,} messages read from {found.files} file{'s'[: found.files != 1]} "
        f"in {found.seconds:.1f} s: {found.inserted:,} inserted, {found.edited:,} edited, "
        f"{found.duplicates:,} duplicates, {found.skipped:,} skipped"
    )
    for reason, count in found.skipped_reasons.items():
        typer.echo(f"  skipped {count:,}: {reason}")
    for example in found.examples:
        typer.echo(f"    {example}")
    if found.assumed_timezone:
        typer.echo(f"  {found.assumed_timezone:,} dates named no zone: --timezone was taken")
    typer.echo(f"channels: {', '.join(found.channels) or 'none'}")
