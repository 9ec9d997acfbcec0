"""`search`: find stored messages by words or characters."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from telegram_hybrid.cli.choices import Json, Since, Until, given
from telegram_hybrid.cli.errors import OK

if TYPE_CHECKING:
    from telegram_hybrid.model import FoundPage

#: Characters of a message that are shown.
_SHOWN = 160


def command(
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help='Words; "phrases", -without, and OR work.')
    ],
    channel: Annotated[
        list[int] | None,
        typer.Option("--channel", metavar="ID", help="In this channel; may be repeated."),
    ] = None,
    since: Since = None,
    until: Until = None,
    language: Annotated[
        str,
        typer.Option(metavar="NAME", help='Find other forms of words too: "english", "russian".'),
    ] = "simple",
    substring: Annotated[
        bool, typer.Option("--substring", help="Find these characters, also inside of words.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Messages to show.", min=1, max=1_000)] = 20,
    cursor: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Go on where the page before ended.")
    ] = None,
    json: Json = False,
) -> int:
    """Find messages by what their text or caption says; deleted ones are left out.

    The newest hundred matches come first, the best of them on top, then the next hundred. Chinese,
    Japanese and Korean words are found inside of others. The last line says how to go on.

    Examples:

        python -m telegram_hybrid search '"take profit" btc -eth' --since 2025-03-01

        python -m telegram_hybrid search usdt --substring --limit 5
    """
    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.servers import store
    from telegram_hybrid.model import Match

    with store() as hybrid:
        page = hybrid.messages.search(
            text,
            channels=channel or None,
            limit=limit,
            language=language,
            match=Match.SUBSTRING if substring else Match.WORDS,
            **given(since=since, until=until, cursor=cursor),
        )
    if json:
        print_json(_plain(page))
    else:
        _print_table(page, text)
    return OK


def _plain(page: FoundPage) -> dict[str, object]:
    import msgspec

    return {
        "found": [
            {"rank": each.rank, "message": msgspec.Raw(each.message.to_json())} for each in page
        ],
        "cursor": page.cursor,
    }


def _print_table(page: FoundPage, text: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not page.found:
        typer.echo("nothing found")
        return
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("sent (UTC)", no_wrap=True)
    table.add_column("channel/message", no_wrap=True)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("says", overflow="fold")
    for each in page:
        said = Text(excerpt(each.message.content, text))
        said.highlight_words(_words(text), "bold", case_sensitive=False)
        table.add_row(
            f"{each.message.sent_at:%Y-%m-%d %H:%M}",
            f"{each.message.channel_id}/{each.message.message_id}",
            f"{each.rank:.2f}",
            said,
        )
    Console().print(table)
    if page.cursor is not None:
        typer.echo(f"there is more: --cursor {page.cursor}")


def excerpt(content: str, text: str, size: int = _SHOWN) -> str:
    """Return the part of a message around the first word that was looked for, on one line."""
    said = " ".join(content.split())
    if len(said) <= size:
        return said
    lowered = said.lower()
    places = [place for word in _words(text) if (place := lowered.find(word.lower())) >= 0]
    begin = max(0, min(min(places, default=0) - size // 4, len(said) - size))
    end = begin + size
    return f"{'…' * (begin > 0)}{said[begin:end].strip()}{'…' * (end < len(said))}"


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text) if word.lower() != "or"]


class Substrings(StrEnum):
    """Whether there is to be an index by any three characters."""

    ON = "on"
    OFF = "off"


def index_substrings(
    wanted: Annotated[
        Substrings, typer.Argument(metavar="STATE", help="on: make the index; off: drop it.")
    ],
) -> int:
    """Index every three characters of messages, for `search --substring`; or no more.

    Without it a substring that is rare is looked for in all messages of the time. With it every
    save costs the database several times more than the index of words does. Writers of messages
    wait while it is made of what is stored. It needs the extension pg_trgm of PostgreSQL.

    Example:

        python -m telegram_hybrid maintenance substrings on
    """
    from telegram_hybrid.cli.servers import store

    with store() as hybrid:
        hybrid.index_substrings(wanted is Substrings.ON)
    typer.echo(f"the index of substrings is {wanted.value}")
    return OK
