"""`migrate`: the database's schema, up, down and status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from telegram_hybrid.cli.errors import OK

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from telegram_hybrid.schema.postgres.migrate import MigrationStatus
    from telegram_hybrid.settings import Settings

app = typer.Typer(
    help="Bring the database's schema up, down, or say where it stands.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def up(json: _Json = False) -> int:
    """Apply every revision that is missing. Several processes may do this at once.

    Example:

        python -m telegram_hybrid migrate up
    """
    from telegram_hybrid.schema.postgres import migrate

    def work(connection: Connection, settings: Settings) -> MigrationStatus:
        return migrate.upgrade(
            connection,
            schema=settings.database_schema,
            interval=settings.partition_interval,
            timescaledb=settings.timescaledb,
        )

    return _run(work, json)


@app.command()
def down(
    to: Annotated[str, typer.Option(help='The revision to go back to; "base" removes everything.')],
    yes: Annotated[
        bool, typer.Option("--yes", help="Really do it: what the revisions hold is dropped.")
    ] = False,
    json: _Json = False,
) -> int:
    """Take revisions back, with the data that they hold.

    Example:

        python -m telegram_hybrid migrate down --to base --yes
    """
    from telegram_hybrid.schema.postgres import migrate

    if not yes:
        raise typer.BadParameter(f"going back to {to!r} drops data: say --yes to do it")

    def work(connection: Connection, settings: Settings) -> MigrationStatus:
        return migrate.downgrade(connection, schema=settings.database_schema, to=to)

    return _run(work, json)


@app.command()
def status(json: _Json = False) -> int:
    """Compare the database's revision with the one that this library needs.

    It also says how messages are stored: in a hypertable of TimescaleDB, or why not.

    Example:

        python -m telegram_hybrid migrate status --json
    """
    from telegram_hybrid.schema.postgres import migrate

    def work(connection: Connection, settings: Settings) -> MigrationStatus:
        return migrate.status(connection, schema=settings.database_schema)

    return _run(work, json)


def _run(work: Callable[[Connection, Settings], MigrationStatus], json: bool) -> int:
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.connect import postgres
    from telegram_hybrid.settings import Settings

    settings = Settings.from_env()
    engine = postgres.open_engine(settings, pooled=False, direct=True)
    try:
        with postgres.translated_errors(engine), postgres.connected(engine) as connection:
            found = work(connection, settings)
    finally:
        engine.dispose()
    if json:
        print_json(
            {
                "current": found.current,
                "head": found.head,
                "is_current": found.is_current,
                "storage": found.storage,
            }
        )
    else:
        state = "current" if found.is_current else f"this library needs {found.head}"
        typer.echo(f"schema {settings.database_schema}: at {found.current or 'nothing'}, {state}")
        typer.echo(found.storage)
    return OK
