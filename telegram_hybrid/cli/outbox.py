"""`outbox`: what waits to be published, and announcing stored messages again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from telegram_hybrid.cli.choices import (
    ChannelId,
    Everything,
    Json,
    Queue,
    Since,
    Type,
    aware,
    place,
)
from telegram_hybrid.cli.errors import OK

if TYPE_CHECKING:
    from telegram_hybrid.outbox.waiting import WaitingEvent

_Number = Annotated[int, typer.Argument(metavar="ID", help="A number from `outbox list`.")]

app = typer.Typer(
    help="What waits to be published, and why (`list`, `show`); channels that the broker refuses, "
    "tried at once (`retry`); what nobody shall get (`discard`); stored messages, announced again "
    "(`replay`). What a relay has given up is in `dlq`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command("list")
def list_(
    channel: ChannelId = None,
    type: Type = None,  # noqa: A002  (the option's name)
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
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.servers import store

    with store() as hybrid:
        backlog = hybrid.outbox.backlog()
        found = hybrid.outbox.list(channel_id=channel, type=type, refused=refused, limit=limit)
    if json:
        print_json(
            {
                "count": backlog.events,
                "oldest": backlog.oldest,
                "events": [_shown(each) for each in found],
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
def show(event: _Number, json: Json = False) -> int:
    """Print all that is known of one event that waits, with its payload and its refusals.

    With --json on one line.

    Example:

        python -m telegram_hybrid outbox show 4711
    """
    import msgspec

    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.servers import store
    from telegram_hybrid.errors import NotFound

    with store() as hybrid:
        found = hybrid.outbox.get(event)
    if found is None:
        raise NotFound(f"event {event} does not wait: it was published, or is a dead letter")
    fields = _shown(found) | {"payload": msgspec.Raw((found.payload or "null").encode())}
    if json:
        print_json(fields)
    else:
        typer.echo(msgspec.json.format(msgspec.json.encode(fields), indent=2).decode())
    return OK


@app.command()
def discard(
    event: _Number,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Kept with its dead letter.")],
    json: Json = False,
) -> int:
    """Have an event never published. It becomes a dead letter that is settled, and its channel
    goes on.

    If a relay may have the event in hand, this waits until that is over, up to 15 seconds. What
    the broker has got by then is not taken back.

    Example:

        python -m telegram_hybrid outbox discard 4711 --reason "sent by mistake"
    """
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.servers import store

    with store() as hybrid:
        letter = hybrid.outbox.discard(event, reason=reason)
    if json:
        print_json({"discarded": event, "letter": letter})
    else:
        typer.echo(f"event {event} is discarded: see `dlq show {letter}`")
    return OK


@app.command()
def retry(channel: ChannelId = None, json: Json = False) -> int:
    """Have refused events tried at once, instead of after their delay; of all channels, or one.

    Example:

        python -m telegram_hybrid outbox retry --channel -1001649127710
    """
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.servers import store

    with store() as hybrid:
        count = hybrid.outbox.retry(channel_id=channel)
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


def _shown(event: WaitingEvent) -> dict[str, Any]:
    import attrs

    fields = attrs.asdict(event)
    del fields["payload"]
    return fields
