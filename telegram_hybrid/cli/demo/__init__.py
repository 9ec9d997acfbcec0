"""`demo`: posts the whole way, on servers that it starts itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from telegram_hybrid.cli.errors import OK


def command(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="Telegram Desktop exports (result.json) or Bot API updates; "
            "without any, the sample that comes with the package.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep everything in this directory: a second run finds only duplicates, and one "
            "that was killed is resumed.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Take posts the whole way, and tell what happened and how long it took.

    Export, message model, PostgreSQL with the outbox row in the same transaction, relay, broker,
    consumer with inbox; and back through cache-aside reads. PostgreSQL and Valkey come from
    wheels: no Docker, no root, no ports.

    The last 200 posts (or a tenth, if that is less) arrive live, 50 a second, after the others were
    consumed: "save" is timed on them (of duplicates, if all are), and "commit to handler" from the
    return of COMMIT to the call of the consumer's handler, if anything was new. Reads are of up to
    500 posts and 64 channels, first with a cold cache, then warm, and compared with what was sent.

    Example:

        python -m telegram_hybrid demo --data posts ChatExport*/result.json
    """
    from telegram_hybrid.cli.demo.report import print_report
    from telegram_hybrid.cli.demo.run import run
    from telegram_hybrid.cli.output import log_to_stderr, print_json
    from telegram_hybrid.sources import sample_path

    log_to_stderr()
    result = run(files or [sample_path()], data)
    if json:
        print_json(result)
    else:
        print_report(result)
    return OK
