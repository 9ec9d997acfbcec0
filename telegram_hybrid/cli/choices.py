"""Options that choose events, and how they are read; shared by `dlq` and `outbox`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Queue = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of this consumer's queue.", show_default=False)
]
Type = Annotated[
    str | None, typer.Option(metavar="TYPE", help="Of this type, such as message.edited.")
]
ChannelId = Annotated[int | None, typer.Option("--channel", metavar="ID", help="Of this channel.")]
Since = Annotated[
    datetime | None,
    typer.Option(
        metavar="TIME",
        formats=_TIMES,
        help="At or after this time: 2025-03-01, or 2025-03-01T12:00:00+02:00 (UTC if no zone).",
    ),
]
Until = Annotated[
    datetime | None, typer.Option(metavar="TIME", formats=_TIMES, help="Before this time.")
]
Reason = Annotated[
    str | None, typer.Option(metavar="TEXT", help="With this text in the reason, in any case.")
]
Everything = Annotated[bool, typer.Option("--all", help="All of them: nothing else is chosen.")]


def place(channel_id: int, message_id: int | None) -> str:
    """What an event is about: a message, or no more than a channel."""
    return str(channel_id) if message_id is None else f"{channel_id}/{message_id}"


def aware(time: datetime | None) -> datetime | None:
    """A time of the command line, in UTC unless it says its zone."""
    return time if time is None or time.tzinfo is not None else time.replace(tzinfo=UTC)


def given(**options: Any) -> dict[str, Any]:
    """Those options that were given, with aware times."""
    found = {name: value for name, value in options.items() if value is not None}
    return {
        name: aware(value) if isinstance(value, datetime) else value
        for name, value in found.items()
    }


def chosen(ids: list[int] | None, everything: bool, **options: Any) -> dict[str, Any]:
    """Those options that were given; refuses letters that are named in two ways, or in none."""
    choice = given(**options)
    if sum([bool(ids), bool(choice), everything]) != 1:
        raise typer.BadParameter(
            "name the letters by ID, or choose them by options, or say --all; see `dlq list`"
        )
    return choice
