"""`cache`: what is cached, and whether it is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from telegram_hybrid.cli.errors import FAILED, OK

if TYPE_CHECKING:
    from telegram_hybrid.hybrid import Hybrid

app = typer.Typer(
    help="Say what is cached in Redis, and compare it with the database.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def audit(
    sample: Annotated[
        int, typer.Option(metavar="NUMBER", help="Keys to compare, drawn at random.", min=1)
    ] = 1000,
    json: _Json = False,
) -> int:
    """Read a random sample of cached messages, windows and pages again from the database.

    Safe at any time: it changes nothing, and a commit meanwhile is no false alarm, because what
    differs is looked at again after 2 seconds. Each key costs a query; larger samples show their
    progress.

    Exit codes: 0 if all are as the database has them, 1 if any is not (or a server failed).

    Example:

        python -m telegram_hybrid cache audit --sample 10000
    """
    import attrs

    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.progress import progress
    from telegram_hybrid.cli.servers import store

    with store() as hybrid, progress() as bars:
        _require(hybrid)
        name = "keys compared"
        bars.begin(name, None)
        found = hybrid.cache.audit(sample, told=lambda done, of: bars.move(name, done, of))
    if json:
        print_json(attrs.asdict(found) | {"per_million": found.per_million})
    else:
        typer.echo(
            f"{found.inconsistent:,} of {found.checked:,} keys are not what the database has"
            f" ({found.per_million:,.0f} per million)"
        )
        for example in found.examples:
            typer.echo(f"  {example}")
    return FAILED if found.inconsistent else OK


@app.command()
def stats(json: _Json = False) -> int:
    """Count our keys in Redis by kind, and tell its memory, limit and evictions.

    Goes through all keys of the server, 1,000 at a time. Hits and misses are counted by each
    process for itself: `hybrid.cache.stats()`.

    Example:

        python -m telegram_hybrid cache stats
    """
    import attrs

    from telegram_hybrid.cli.output import bytes_of, print_json
    from telegram_hybrid.cli.servers import store

    with store() as hybrid:
        _require(hybrid)
        found = hybrid.cache.contents()
    if json:
        print_json(attrs.asdict(found))
        return OK
    for kind, count in found.keys.items():
        typer.echo(f"{kind:<12}{count:>12,}")
    limit = f"of {bytes_of(found.memory_limit)}, {found.policy}" if found.memory_limit else ""
    typer.echo(f"{'memory':<12}{bytes_of(found.memory):>12} {limit}".rstrip())
    typer.echo(f"{'evicted':<12}{found.evicted:>12,}")
    return OK


def _require(hybrid: Hybrid) -> None:
    from telegram_hybrid.errors import ConfigurationError

    if hybrid.settings.redis_url is None:
        raise ConfigurationError("no cache: set TELEGRAM_REDIS_URL or TELEGRAM_REDIS_HOST")
