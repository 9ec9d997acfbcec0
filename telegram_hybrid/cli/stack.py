"""`stack`: the deployment of the servers as files, written and checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from telegram_hybrid.cli.errors import FAILED, OK

if TYPE_CHECKING:
    from telegram_hybrid.stack import Report, Written

app = typer.Typer(
    help="Write the deployment of the servers as files, from PostgreSQL to RabbitMQ, or check it.",
    no_args_is_help=True,
)
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Directory = Annotated[
    Path, typer.Argument(metavar="DIR", help="The deployment's directory.", show_default=False)
]

_Ports = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=NUMBER",
        help="Another port for a listener: postgres, pgbouncer, redis, replica, sentinel-1, "
        "sentinel-2, sentinel-3, rabbitmq, management. May be repeated.",
        show_default=False,
    ),
]
_Timescaledb = Annotated[
    bool | None,
    typer.Option(
        "--timescaledb/--no-timescaledb",
        help="Preload TimescaleDB. In containers it is there; natively only if you say so.",
        show_default=False,
    ),
]
_Handler = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="What the consumer's unit calls; without it, events are printed.",
        show_default=False,
    ),
]


@app.command()
def write(
    directory: _Directory,
    native: Annotated[
        bool,
        typer.Option(
            "--native", help="For servers of this machine instead of containers; data in DIR/data."
        ),
    ] = False,
    port: _Ports = None,
    timescaledb: _Timescaledb = None,
    handler: _Handler = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that differ; secrets stay.")
    ] = False,
    new_secrets: Annotated[
        bool,
        typer.Option(
            "--new-secrets",
            help="With --force: fresh secrets in all files. Servers that run keep the old ones.",
        ),
    ] = False,
    json: _Json = False,
) -> int:
    """Write compose file, configurations, systemd units and .env, with fresh random secrets.

    Nothing that is there is overwritten: files that you have changed stay, and secrets are made
    once. Every file has mode 0600 and every port is on 127.0.0.1.

    Examples:

        python -m telegram_hybrid stack write deploy && cd deploy && docker compose up -d --wait

        python -m telegram_hybrid stack write deploy --native --port redis=16379
    """
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.stack import Outcome, Plan, write

    plan = Plan(native=native, ports=_ports(port or []), timescaledb=timescaledb, handler=handler)
    written = write(directory, plan, force=force, new_secrets=new_secrets)
    if json:
        print_json(
            {
                "directory": str(directory.absolute()),
                "files": {each.file: each.outcome.value for each in written},
            }
        )
    else:
        _print_written(directory, written, Outcome.KEPT)
    return OK


@app.command()
def check(directory: _Directory, json: _Json = False) -> int:
    """Check every file of a deployment, each with the real program where that is installed.

    PostgreSQL, PgBouncer, Redis, Sentinel, RabbitMQ, systemd and docker compose are asked, on
    copies and without serving anybody; every file is also read against the keys that its program
    knows. Exits with 1 and names file and line if anything is wrong.

    Example: python -m telegram_hybrid stack check deploy
    """
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.stack import check

    report = check(directory)
    if json:
        print_json(_fields(report))
    else:
        for problem in report.problems:
            typer.echo(str(problem))
        asked = {program for each in report.files for program in each.by[1:]}
        typer.echo(
            f"{len(report.files)} files, {len(report.problems)} problems; "
            f"asked: {', '.join(sorted(asked)) or 'no program'}"
            + (f"; not installed: {', '.join(report.skipped)}" if report.skipped else "")
        )
    return OK if report.ok else FAILED


def _ports(given: list[str]) -> dict[str, int]:
    ports = {}
    for each in given:
        name, separator, number = each.partition("=")
        if not (separator and number.isdecimal()):
            raise typer.BadParameter(f"--port {each!r}: expected NAME=NUMBER, as in redis=16379")
        ports[name] = int(number)
    return ports


def _print_written(directory: Path, written: list[Written], kept: object) -> None:
    stayed = [each for each in written if each.outcome is kept]
    for each in written:
        typer.echo(f"{each.outcome.value:<10}{directory / each.file}")
    if stayed:
        typer.echo(f"{len(stayed)} files differ from what would be written; --force replaces them")


def _fields(report: Report) -> dict[str, object]:
    import attrs

    return {"ok": report.ok, **attrs.asdict(report)}
