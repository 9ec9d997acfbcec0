"""The command line: `python -m telegram_hybrid COMMAND`; each command lives in its own module.

The modules of the commands import what they run inside the command, so that `--help` is quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from telegram_hybrid._version import __version__
from telegram_hybrid.cli import (
    cache,
    changes,
    channels,
    demo,
    dlq,
    health,
    importing,
    legacy,
    maintenance,
    migrating,
    outbox,
    roles,
    search,
    services,
    stack,
    statistics,
)
from telegram_hybrid.cli.errors import OK, guarded

_HELP = """
Telegram channel messages: stored once in PostgreSQL, read through a Redis cache, announced
reliably to RabbitMQ.

Try it on servers that it starts itself, with posts that come with it:

    python -m telegram_hybrid demo
"""

_EPILOG = """
Servers come from the environment, one URL each: TELEGRAM_DATABASE_URL (postgresql://...),
TELEGRAM_REDIS_URL (redis://...), TELEGRAM_BROKER_URL (amqp://...); or in parts:
TELEGRAM_DB_HOST, _PORT, _NAME, _USER, _PASSWORD; TELEGRAM_REDIS_HOST, _PORT, _PASSWORD;
TELEGRAM_RABBITMQ_HOST, _PORT, _USER, _PASSWORD, _VHOST.

Exit codes: 0 done, 1 a service failed, 2 bad input or usage, 130 Ctrl-C.
"""

app = typer.Typer(
    help=_HELP,
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.command)
app.command("import")(importing.command)
app.add_typer(channels.app, name="channels")
app.command("gaps", context_settings={"ignore_unknown_options": True})(channels.gaps)
app.command("relay")(services.relay)
app.command("consume")(services.consume)
app.command("changes")(changes.command)
app.add_typer(dlq.app, name="dlq")
app.add_typer(outbox.app, name="outbox")
app.add_typer(maintenance.app, name="maintenance")
app.command("search")(search.command)
app.add_typer(migrating.app, name="migrate")
app.add_typer(roles.app, name="roles")
# A channel's id begins with a dash, and is no option.
app.command("statistics", context_settings={"ignore_unknown_options": True})(statistics.command)
app.command("migrate-legacy")(legacy.migrate)
app.command("rollback-legacy")(legacy.rollback)
app.command("health")(health.command)
app.add_typer(cache.app, name="cache")
app.add_typer(stack.app, name="stack")


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; see `cli.errors` for the codes."""
    rest, debug = _without_debug(arguments)

    def invoke() -> int:
        code = typer.main.get_command(app).main(args=rest, standalone_mode=False)
        return code if isinstance(code, int) else OK

    return guarded(invoke, debug=debug)


def _without_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Take --debug out, so that it may stand before or after the command."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [item for item in arguments[:end] if item != "--debug"]
    return [*options, *arguments[end:]], len(options) < end


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"telegram_hybrid {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; may also follow the command.")
    ] = False,
) -> None:
    """Options of all commands; `run` has taken --debug out before we get here."""
