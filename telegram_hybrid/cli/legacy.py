"""`migrate-legacy` and `rollback-legacy`: from the original system's database, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from telegram_hybrid.cli.errors import FAILED, OK, USAGE
from telegram_hybrid.cli.importing import OnError

if TYPE_CHECKING:
    from telegram_hybrid.cli.progress import Progress
    from telegram_hybrid.hybrid import Hybrid
    from telegram_hybrid.legacy import Found, Migrated

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_From = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="URL",
        help="The original's database, postgresql://user@host:port/name; its password may "
        "come from PGPASSWORD or ~/.pgpass.",
    ),
]
_FromSchema = Annotated[str, typer.Option(metavar="NAME", help="Where its tables are.")]
_ToSchema = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The target's schema; TELEGRAM_DB_SCHEMA, or telegram_gateway, unless given.",
        show_default=False,
    ),
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Check all rows, write none.")]
_OnError = Annotated[
    OnError, typer.Option(help="Rows that cannot be stored: bring nothing, or leave them out.")
]
_Named = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT=ID",
        help="The marked id of a channel that the original names otherwise; repeatable.",
    ),
]


def migrate(
    source: _From,
    from_schema: _FromSchema = "telegram_gateway",
    to_schema: _ToSchema = None,
    dry_run: _DryRun = False,
    on_error: _OnError = OnError.RAISE,
    channel: _Named = None,
    json: _Json = False,
) -> int:
    """Bring messages and channels of the original system into the configured database.

    All rows are checked before one is written. The source is only read, in one snapshot: stop its
    writers first, or what they write meanwhile is missing. Copies of one message become one, their
    other texts its revisions. Consumers are told nothing of history; `outbox replay` does that.

    After a crash or Ctrl-C, run it again and it goes on. At the end both sides are compared by
    counts and checksums.

    Exit codes: 0 brought and compared, or checked; 1 something does not agree; 2 rows that cannot
    be brought, and nothing was written.

    Example:

        python -m telegram_hybrid migrate-legacy --from postgresql://gateway@old/telegram --dry-run
    """
    from telegram_hybrid import legacy
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.progress import progress
    from telegram_hybrid.errors import LegacyRefused

    named = _named(channel or [])
    with _store(to_schema) as hybrid, progress() as bars:
        code = OK
        try:
            done = legacy.migrate(
                hybrid,
                source,
                schema=from_schema,
                channels=named,
                on_error=on_error.value,
                dry_run=dry_run,
                told=_Bars(bars),
            )
        except LegacyRefused as refused:
            if not isinstance(refused.report, legacy.Migrated):
                raise
            done, code = refused.report, USAGE
            typer.echo(f"telegram_hybrid: {refused}", err=True)
    if done.problems:
        code = FAILED
    if json:
        print_json(_object(done))
    else:
        _print(done, code)
    return code


def rollback(
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Only what came from there, as migrate-legacy named it.",
            show_default=False,
        ),
    ] = None,
    to_schema: _ToSchema = None,
    yes: Annotated[bool, typer.Option("--yes", help="Really do it.")] = False,
    json: _Json = False,
) -> int:
    """Remove what `migrate-legacy` brought, and nothing else.

    A message that was edited, marked or deleted since stays, and so does every one that was here
    before. After a crash, run it again.

    Example:

        python -m telegram_hybrid rollback-legacy --yes
    """
    import attrs

    from telegram_hybrid import legacy
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.progress import progress

    if not yes:
        raise typer.BadParameter("this removes messages: say --yes to do it")
    with _store(to_schema) as hybrid, progress() as bars:
        done = legacy.rollback(hybrid, source=source, told=_Bars(bars))
    if json:
        print_json(attrs.asdict(done))
    else:
        typer.echo(
            f"{done.messages:,} messages, {done.revisions:,} revisions and {done.channels:,} "
            f"channels removed; {done.stayed:,} messages stay, because they were changed since"
        )
        if not done.told:
            typer.echo(
                "Redis could not be told: delete its keys that begin with "
                "TELEGRAM_REDIS_PREFIX:dedup:",
                err=True,
            )
    return OK


class _Bars:
    """Shows one bar for each stage."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._begun: set[str] = set()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._begun:
            self._begun.add(stage)
            self._bars.begin(stage, total)
        self._bars.move(stage, done, total)


def _store(schema: str | None) -> Hybrid:
    import attrs

    from telegram_hybrid.hybrid import connect
    from telegram_hybrid.settings import Settings

    settings = Settings.from_env()
    return connect(attrs.evolve(settings, database_schema=schema) if schema else settings)


def _named(pairs: Sequence[str]) -> dict[str, int]:
    named = {}
    for pair in pairs:
        text, _, number = pair.rpartition("=")
        try:
            named[text] = int(number)
        except ValueError:
            raise typer.BadParameter(
                f"--channel: {pair!r} is not TEXT=ID, as in signals=-1001649127710"
            ) from None
    return named


def _object(done: Migrated) -> dict[str, object]:
    import attrs

    found = attrs.asdict(done.found, filter=lambda field, _: not field.name.startswith("_"))
    return {
        **attrs.asdict(done, filter=lambda field, _: field.name not in ("found", "channels")),
        "found": {**found, "duplicates": done.found.duplicates},
        "brought": done.brought,
        "present": done.present,
        "revisions": done.revisions,
        "problems": done.problems,
        "channels": [attrs.asdict(each) for each in done.channels],
    }


def _print(done: Migrated, code: int) -> None:
    from rich.console import Console
    from rich.table import Table

    _print_found(done.source, done.found)
    if done.channels:
        table = Table(box=None, pad_edge=False)
        table.add_column("channel")
        for name in ("messages", "brought", "present", "revisions", "verified", "changed"):
            table.add_column(name, justify="right")
        for each in done.channels:
            numbers = (each.messages, each.brought, each.present, each.revisions)
            shown = [f"{number:,}" for number in (*numbers, each.verified, each.changed)]
            table.add_row(str(each.channel_id), *shown)
        Console().print(table)
        resumed = f", {done.resumed:,} of them by earlier runs" if done.resumed else ""
        typer.echo(
            f"{done.brought:,} brought, {done.present:,} present before, {done.revisions:,} "
            f"revisions{resumed}; {done.seconds:.1f} s"
        )
    for problem in done.problems:
        typer.echo(f"does not agree: {problem}", err=True)
    if done.channels and not done.problems:
        typer.echo("counts and checksums agree")
    elif done.dry_run and code == OK:
        typer.echo(f"checked in {done.seconds:.1f} s; nothing was written")


def _print_found(source: str, found: Found) -> None:
    typer.echo(
        f"{source}: {found.rows:,} rows are {found.messages:,} messages of {found.channels:,} "
        f"channels, with {found.duplicates:,} duplicates and {found.revisions:,} earlier texts; "
        f"{found.deleted:,} are deleted"
    )
    if found.missing:
        typer.echo(f"  columns that are not there: {', '.join(found.missing)}")
    for notice, count in found.notices.items():
        typer.echo(f"  {count:,}: {notice}")
    for reason, count in found.refused.items():
        typer.echo(f"  refused {count:,} rows: {reason}")
    for example in found.examples:
        typer.echo(f"    {example}")
