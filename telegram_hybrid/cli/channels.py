"""`channels`: the registry; `gaps`: which ids of a channel are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from telegram_hybrid.cli.choices import Json
from telegram_hybrid.cli.errors import OK

if TYPE_CHECKING:
    from telegram_hybrid.model import Channel, GapReport

app = typer.Typer(
    help="The channels whose messages are kept: which there are (`list`), making them known "
    "(`register`), having pollers skip one (`deactivate`), and groups that became supergroups "
    "(`migrated`).",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
# Negative, as nearly all ids are: click would take them for options.
_NEGATIVE = {"ignore_unknown_options": True}
_Id = Annotated[int, typer.Argument(metavar="ID", help="The marked id, -100... for channels.")]


@app.command("list")
def list_(
    active: Annotated[bool, typer.Option("--active", help="Only those that are active.")] = False,
    json: Json = False,
) -> int:
    """List the channels by id.

    Example:

        python -m telegram_hybrid channels list --active
    """
    import attrs

    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.servers import store

    with store() as hybrid:
        found = hybrid.channels.list(active_only=active)
    if json:
        print_json({"channels": [attrs.asdict(each) for each in found]})
        return OK
    for each in found:
        typer.echo(_line(each))
    typer.echo(f"{len(found):,} channels", err=True)
    return OK


@app.command(context_settings=_NEGATIVE)
def register(
    channel: _Id,
    title: Annotated[str | None, typer.Option(help="Telegram's name for it.")] = None,
    username: Annotated[str | None, typer.Option(help='Without "@".')] = None,
    label: Annotated[str | None, typer.Option(help="Our name for it.")] = None,
    json: Json = False,
) -> int:
    """Register a channel, or bring what is known of it up to date; it is active then.

    With TELEGRAM_UNKNOWN_CHANNELS=refuse only messages of registered channels are stored.

    Example:

        python -m telegram_hybrid channels register -1001649127710 --label signals
    """
    from telegram_hybrid.cli.servers import store
    from telegram_hybrid.model import Channel

    wanted = Channel(channel_id=channel, title=title, username=username, label=label)
    with store() as hybrid:
        found = hybrid.channels.register(wanted)
    return _show(found, json)


@app.command(context_settings=_NEGATIVE)
def deactivate(channel: _Id, json: Json = False) -> int:
    """Have pollers skip a channel. It stays registered, and its messages are stored as before.

    Example:

        python -m telegram_hybrid channels deactivate -1001649127710
    """
    from telegram_hybrid.cli.servers import store

    with store() as hybrid:
        found = hybrid.channels.deactivate(channel)
    return _show(found, json)


@app.command(context_settings=_NEGATIVE)
def migrated(
    old: Annotated[int, typer.Argument(metavar="OLD", help="The basic group's id.")],
    new: Annotated[int, typer.Argument(metavar="NEW", help="The supergroup's id, -100...")],
    json: Json = False,
) -> int:
    """Record that a basic group became a supergroup, so that both are read as one history.

    The Bot API's and Telethon's service messages record it by themselves when they are saved; a
    Desktop export does not name the other chat.

    Example:

        python -m telegram_hybrid channels migrated -414003 -1001649127710
    """
    import attrs

    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.servers import store

    with store() as hybrid:
        found = hybrid.channels.record_migration(old, new)
    if json:
        print_json(attrs.asdict(found))
    else:
        typer.echo(f"{found.old} became {found.new}")
    return OK


def gaps(
    channel: Annotated[
        int | None,
        typer.Argument(
            metavar="CHANNEL", help="Its marked id; a line for each channel unless given."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, max=100_000, help="Show at most so many gaps of the channel.")
    ] = 20,
    after: Annotated[
        int | None, typer.Option(metavar="ID", help="Gaps that end behind this message id.")
    ] = None,
    json: Json = False,
) -> int:
    """Tell which message ids of a channel are known, and which are not.

    A gap proves nothing: a message may have been deleted before it was seen, or be of a kind that
    no source tells. What it gives is a place to look, with the times on both sides. Ids of basic
    groups and private chats are counted over all chats of an account: there, gaps mean nothing.

    Example:

        python -m telegram_hybrid gaps -1001649127710 --limit 50
    """
    import attrs

    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.progress import progress
    from telegram_hybrid.cli.servers import store

    with store() as hybrid:
        if channel is not None:
            reports = [hybrid.channels.gaps(channel, limit=limit, after=after)]
        else:
            with progress() as bars:
                ids = [each.channel_id for each in hybrid.channels.list()]
                bars.begin("channels", len(ids))
                reports = []
                for done, each in enumerate(ids, 1):
                    reports.append(hybrid.channels.gaps(each, limit=0))
                    bars.move("channels", done)
    if json:
        print_json(attrs.asdict(reports[0]) if channel is not None else _all(reports))
        return OK
    for report in reports:
        typer.echo(_summary(report))
        for gap in report.gaps:
            between = f"between {gap.after:%Y-%m-%d %H:%M} and {gap.before:%Y-%m-%d %H:%M}"
            typer.echo(f"  {gap.first}-{gap.last}: {gap.count:,} ids, {between} UTC")
    if channel is not None and len(reports[0].gaps) == limit > 0:
        typer.echo(f"for more: --after {reports[0].gaps[-1].last}", err=True)
    return OK


def _all(reports: list[GapReport]) -> dict[str, Any]:
    import attrs

    return {"channels": [attrs.asdict(each) for each in reports]}


def _summary(report: GapReport) -> str:
    if not report.known:
        return f"{report.channel_id}: nothing is known"
    words = [
        f"{report.channel_id}: {report.known:,} known, {report.first_id} to {report.last_id}",
        f"{report.deleted:,} of them deleted" if report.deleted else "",
        f"{report.missing:,} ids not known in {_gaps(report.gap_count)}" if report.missing else "",
        f"{report.head.count:,} before the first" if report.head else "",
        f"begins in {report.migrated_from}" if report.migrated_from else "",
        f"goes on in {report.migrated_to}" if report.migrated_to else "",
        "" if report.numbered else "ids of its account: gaps mean nothing",
    ]
    return "; ".join(filter(None, words))


def _gaps(count: int) -> str:
    return f"{count:,} gap{'s'[: count != 1]}"


def _show(channel: Channel, json: bool) -> int:
    import attrs

    from telegram_hybrid.cli.output import print_json

    if json:
        print_json(attrs.asdict(channel))
    else:
        typer.echo(_line(channel))
    return OK


def _line(channel: Channel) -> str:
    name = channel.label or channel.title or ""
    user = f"@{channel.username}" if channel.username else ""
    state = "" if channel.is_active else "inactive"
    return "  ".join(filter(None, (str(channel.channel_id), name, user, state)))
