"""`roles`: who may do what in the database."""

from __future__ import annotations

from typing import Annotated

import typer

from telegram_hybrid.cli.choices import Json
from telegram_hybrid.cli.errors import OK

app = typer.Typer(
    help="Roles of the database with no more rights than they need: one that owns the schema, one "
    "that writes, one that reads.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.callback()
def _group() -> None:
    """With one command alone, typer would drop its name."""


@app.command()
def create(
    prefix: Annotated[
        str,
        typer.Option(metavar="NAME", help="The roles are NAME_owner, NAME_writer, NAME_reader."),
    ] = "telegram",
    sql_only: Annotated[
        bool, typer.Option("--sql-only", help="Print the SQL, and connect to nothing.")
    ] = False,
    json: Json = False,
) -> int:
    """Make the roles, or bring their rights up to date. Run it before or after `migrate up`.

    They have no login: make the logins of your services members of one of them. The login that
    runs this, and the one that owned the schema, become members of the owner, so that everything
    goes on as before; later migrations give the rights to what they make.

    It needs a login that may create roles. If yours may not, have a superuser run the SQL.

    Example:

        python -m telegram_hybrid roles create

    Example, by a superuser:

        python -m telegram_hybrid roles create --sql-only | sudo -u postgres psql -d telegram
    """
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.connect import postgres
    from telegram_hybrid.errors import DatabaseError
    from telegram_hybrid.schema.postgres import roles
    from telegram_hybrid.settings import Settings

    owner, writer, reader = roles.names(prefix)
    if sql_only:
        typer.echo(roles.script(_schema(), prefix), nl=False)
        return OK
    settings = Settings.from_env()
    engine = postgres.open_engine(settings, pooled=False, direct=True)
    try:
        with postgres.transaction(engine) as connection:
            roles.create(connection, settings.database_schema, prefix)
    except DatabaseError as error:
        if "permission denied" in str(error) or "must be owner" in str(error):
            error.add_note("have a superuser run what `roles create --sql-only` prints")
        raise
    finally:
        engine.dispose()
    if json:
        print_json({"owner": owner, "writer": writer, "reader": reader})
    else:
        typer.echo(f"schema {settings.database_schema}: {owner}, {writer} and {reader}")
        typer.echo(
            f"now give logins a part: CREATE ROLE name LOGIN PASSWORD '...' IN ROLE {writer}"
        )
    return OK


def _schema() -> str:
    """The schema's name alone: no server need be named for it."""
    import os

    from telegram_hybrid.settings import Settings

    named = {"TELEGRAM_DB_SCHEMA": os.environ.get("TELEGRAM_DB_SCHEMA", "")}
    return Settings.from_env({"TELEGRAM_DB_HOST": "-", **named}).database_schema
