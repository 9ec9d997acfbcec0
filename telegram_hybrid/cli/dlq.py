"""`dlq`: dead letters, looked at, replayed, discarded, and drained from the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from telegram_hybrid.cli.choices import (
    ChannelId,
    Everything,
    Json,
    Queue,
    Reason,
    Since,
    Type,
    Until,
    chosen,
    given,
    place,
)
from telegram_hybrid.cli.errors import FAILED, OK

if TYPE_CHECKING:
    from telegram_hybrid.outbox.dead_letters import StoredLetter

app = typer.Typer(
    help="Dead letters: events that a consumer's handler failed on for good, that nobody could "
    "read, or that the broker never took. Look at them (`list`, `show`), mend the cause, then "
    "hand them out again (`replay`), or close them (`discard`).",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_Ids = Annotated[
    list[int] | None, typer.Argument(metavar="[ID]...", help="Numbers from `dlq list`.")
]


@app.command("list")
def list_(
    queue: Queue = None,
    type: Type = None,  # noqa: A002  (the option's name)
    channel: ChannelId = None,
    since: Since = None,
    until: Until = None,
    reason: Reason = None,
    settled: Annotated[
        bool, typer.Option("--settled", help="The history: what was replayed or discarded.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    before: Annotated[
        int | None, typer.Option(metavar="ID", help="The next page: below this number.")
    ] = None,
    json: Json = False,
) -> int:
    """List letters, newest first. A --queue of "" means: never published.

    Example:

        python -m telegram_hybrid dlq list --queue signals --since 2025-03-01
    """
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.servers import store

    choice = given(
        queue=queue, type=type, channel_id=channel, since=since, until=until, reason=reason
    )
    with store() as hybrid:
        found = hybrid.dead_letters.list(settled=settled, limit=limit, before=before, **choice)
        total = len(found) if settled else hybrid.dead_letters.count(**choice)
    if json:
        print_json({"count": total, "letters": [_shown(each) for each in found]})
        return OK
    for each in found:
        state = f" [{each.outcome}]" if each.outcome else ""
        typer.echo(
            f"{each.id}  {each.failed_at:%Y-%m-%d %H:%M:%S}  {each.queue or '(not published)'}  "
            f"{each.type}  {place(each.channel_id, each.message_id)}  {_short(each.reason)}{state}"
        )
    typer.echo(f"{len(found):,} of {total:,} shown" if total else "no dead letters", err=True)
    return OK


@app.command()
def show(
    letter: Annotated[int, typer.Argument(metavar="ID", help="A number from `dlq list`.")],
) -> int:
    """Print all that is known of one letter, with its payload, as one JSON object.

    Example:

        python -m telegram_hybrid dlq show 12
    """
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.servers import store
    from telegram_hybrid.errors import NotFound

    with store() as hybrid:
        found = hybrid.dead_letters.get(letter)
    if found is None:
        raise NotFound(f"there is no dead letter {letter}")
    print_json(_shown(found, payload=True))
    return OK


@app.command()
def replay(
    ids: _Ids = None,
    queue: Queue = None,
    type: Type = None,  # noqa: A002
    channel: ChannelId = None,
    since: Since = None,
    until: Until = None,
    reason: Reason = None,
    everything: Everything = False,
    json: Json = False,
) -> int:
    """Put events back into the outbox, in their channels' order; a relay publishes them again.

    The queue that gave them up handles them once more; for all others they are duplicates. To
    interrupt and to repeat it is safe: every letter is replayed once.

    Exit code 1 if some letters cannot be read by this version; they stay open.

    Example:

        python -m telegram_hybrid dlq replay --queue signals --reason Timeout
    """
    choice = chosen(
        ids,
        everything,
        queue=queue,
        type=type,
        channel_id=channel,
        since=since,
        until=until,
        reason=reason,
    )
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.progress import progress
    from telegram_hybrid.cli.servers import store

    with store() as hybrid, progress() as bars:
        box = hybrid.dead_letters
        unreadable: tuple[int, ...] = ()
        if ids:
            events = sum(box.replay(each) for each in ids)
        else:
            total = box.count(**choice)
            bars.begin("replay", total)
            done = box.replay_all(progress=lambda at: bars.move("replay", at, total), **choice)
            events, unreadable = done.events, done.unreadable
    if json:
        print_json({"replayed": events, "unreadable": unreadable})
    else:
        typer.echo(f"{events:,} put back into the outbox")
        if unreadable:
            some = ", ".join(map(str, unreadable[:10]))
            typer.echo(f"{len(unreadable):,} cannot be read by this version: {some}", err=True)
    return FAILED if unreadable else OK


@app.command()
def discard(
    why: Annotated[str, typer.Option(metavar="TEXT", help="Kept with each letter.")],
    ids: _Ids = None,
    queue: Queue = None,
    type: Type = None,  # noqa: A002
    channel: ChannelId = None,
    since: Since = None,
    until: Until = None,
    reason: Reason = None,
    everything: Everything = False,
    json: Json = False,
) -> int:
    """Close letters without a replay. They stay in the history, with what you say.

    Example:

        python -m telegram_hybrid dlq discard 12 13 --why "posts of a test"
    """
    choice = chosen(
        ids,
        everything,
        queue=queue,
        type=type,
        channel_id=channel,
        since=since,
        until=until,
        reason=reason,
    )
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.servers import store

    with store() as hybrid:
        box = hybrid.dead_letters
        if ids:
            closed = sum(box.discard(each, reason=why) for each in ids)
        else:
            closed = box.discard_all(why=why, **choice)
    if json:
        print_json({"discarded": closed})
    else:
        typer.echo(f"{closed:,} discarded")
    return OK


@app.command()
def drain(
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many messages.")] = None,
    json: Json = False,
) -> int:
    """Move the broker's own dead-letter queue into rows, where they can be replayed.

    Example:

        python -m telegram_hybrid dlq drain
    """
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.servers import store

    with store() as hybrid:
        done = hybrid.dead_letters.drain(limit=limit)
    if json:
        print_json({"messages": done.messages, "letters": done.letters})
    else:
        typer.echo(f"{done.messages:,} messages taken, {done.letters:,} new dead letters")
    return OK


def _shown(letter: StoredLetter, *, payload: bool = False) -> dict[str, Any]:
    import attrs
    import msgspec

    fields = attrs.asdict(letter)
    text = fields.pop("payload")
    return {**fields, "payload": msgspec.Raw(text.encode())} if payload else fields


def _short(reason: str) -> str:
    line = reason.splitlines()[0] if reason else ""
    return line if len(line) <= 80 else f"{line[:79]}…"
