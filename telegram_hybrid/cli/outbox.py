"""`outbox`: what waits to be published, and announcing stored messages again."""

from __future__ import annotations

from typing import Annotated

import typer

from telegram_hybrid.cli.choices import ChannelId, Everything, Json, Queue, Since, aware, place
from telegram_hybrid.cli.errors import OK

app = typer.Typer(
    help="What waits to be published, and why (`list`); channels that the broker refuses, tried at "
    "once (`retry`); stored messages, announced again (`replay`).",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command("list")
def list_(
    channel: ChannelId = None,
    refused: Annotated[
        bool,
        typer.Option(
            "--refused", help="Only what the broker did not take: it holds up its channel."
        ),
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    json: Json = False,
) -> int:
    """List events that wait, oldest first, with what the broker said of those it refused.

    Example:

        python -m telegram_hybrid outbox list --refused
    """
    import attrs

    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.servers import store
    from telegram_hybrid.outbox import claims, waiting

    with store() as hybrid, hybrid.transaction() as tx:
        schema = hybrid.settings.database_schema
        backlog = claims.backlog(tx.connection, schema)
        found = waiting.waiting(
            tx.connection, schema, channel_id=channel, refused=refused, limit=limit
        )
    if json:
        print_json(
            {
                "count": backlog.events,
                "oldest": backlog.oldest,
                "events": [attrs.asdict(each) for each in found],
            }
        )
        return OK
    for each in found:
        when = f"again at {each.not_before:%H:%M:%S}" if each.not_before else "frozen"
        why = f"  {each.attempts} refusals, {when}: {each.last_error}" if each.last_error else ""
        typer.echo(
            f"{each.id}  {each.occurred_at:%Y-%m-%d %H:%M:%S}  {each.type}  "
            f"{place(each.channel_id, each.message_id)}{why}"
        )
    typer.echo(f"{backlog.events:,} events wait", err=True)
    return OK


@app.command()
def retry(channel: ChannelId = None, json: Json = False) -> int:
    """Have refused events tried at once, instead of after their delay; of all channels, or one.

    Example:

        python -m telegram_hybrid outbox retry --channel -1001649127710
    """
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.servers import store
    from telegram_hybrid.outbox import waiting

    with store() as hybrid, hybrid.transaction() as tx:
        count = waiting.retry(tx.connection, hybrid.settings.database_schema, channel_id=channel)
    if json:
        print_json({"retried": count})
    else:
        typer.echo(f"{count:,} refused events are tried at once")
    return OK


@app.command()
def replay(
    channel: ChannelId = None,
    since: Since = None,
    queue: Queue = None,
    everything: Everything = False,
    json: Json = False,
) -> int:
    """Announce stored messages again, by fresh events to every queue that is bound.

    With --queue, only messages whose last change that queue's consumer has not dealt with. One
    transaction for each channel, which cannot be written to meanwhile.

    Example:

        python -m telegram_hybrid outbox replay --queue signals --since 2025-03-01
    """
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.progress import progress
    from telegram_hybrid.cli.servers import store
    from telegram_hybrid.delivery.replay import stored_channels

    if everything == (channel is not None or since is not None or queue is not None):
        raise typer.BadParameter("choose by --channel, --since or --queue, or say --all")
    written = 0
    with store() as hybrid, progress() as bars:
        if channel is not None:
            channels = [channel]
        else:
            with hybrid.transaction() as tx:
                channels = stored_channels(tx.connection, hybrid.settings.database_schema)
        bars.begin("channels", len(channels))
        for done, each in enumerate(channels, 1):
            written += hybrid.replay(channel_id=each, since=aware(since), queue=queue)
            bars.move("channels", done, len(channels))
    if json:
        print_json({"announced": written})
    else:
        typer.echo(f"{written:,} messages announced again")
    return OK
