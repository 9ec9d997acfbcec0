"""`maintenance`: forgetting what is no longer needed; for a timer."""

from __future__ import annotations

from typing import Annotated

import typer

from telegram_hybrid.cli import search
from telegram_hybrid.cli.choices import Json
from telegram_hybrid.cli.errors import OK

app = typer.Typer(
    help="Forget what is no longer needed, in small batches beside running consumers.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


app.command("substrings")(search.index_substrings)

_InboxDays = Annotated[
    float | None,
    typer.Option(
        help="Keep what queues have dealt with for so many days; TELEGRAM_INBOX_WINDOW "
        "(seconds), or a week, unless given.",
        show_default=False,
    ),
]
_LetterDays = Annotated[
    float, typer.Option(help="Keep replayed and discarded dead letters for so many days.")
]
_ChangeDays = Annotated[float, typer.Option(help="Keep what `changes` tells for so many days.")]
_MessageDays = Annotated[
    float | None,
    typer.Option(
        help="Remove messages that were sent more than so many days ago, by whole partitions; "
        "TELEGRAM_MESSAGE_WINDOW (seconds), or none at all, unless given.",
        show_default=False,
    ),
]
_CompressDays = Annotated[
    float | None,
    typer.Option(
        help="With TimescaleDB, compress messages that were sent more than so many days ago; "
        "TELEGRAM_COMPRESS_WINDOW (seconds), or none at all, unless given.",
        show_default=False,
    ),
]


@app.command()
def run(
    inbox_days: _InboxDays = None,
    letter_days: _LetterDays = 90.0,
    change_days: _ChangeDays = 30.0,
    message_days: _MessageDays = None,
    compress_days: _CompressDays = None,
    json: Json = False,
) -> int:
    """Forget old inbox rows, settled dead letters and changes. Run it once a day, at any time.

    Partitions of messages are made for the near future. Messages are removed only if you say for
    how long they stay: statistics of them stay, and a redelivery is still known.

    The inbox is how a repeated event is known: keep it for longer than any event may take to be
    handed out again. Open dead letters are never touched. Who polls for changes more seldom than
    they are kept has to begin anew.

    Example:

        python -m telegram_hybrid maintenance run --inbox-days 14
    """
    from functools import partial

    import attrs

    from telegram_hybrid.cli.output import print_json
    from telegram_hybrid.cli.progress import progress
    from telegram_hybrid.cli.servers import store
    from telegram_hybrid.delivery.maintenance import DAY

    with store() as hybrid, progress() as bars:
        window = {} if inbox_days is None else {"inbox_window": inbox_days * DAY}
        bars.begin("partitions", None, unit="partitions")
        done = hybrid.maintain(
            letter_window=letter_days * DAY,
            change_window=change_days * DAY,
            message_window=None if message_days is None else message_days * DAY,
            compress_window=None if compress_days is None else compress_days * DAY,
            progress=partial(bars.move, "partitions"),
            **window,
        )
    if json:
        print_json(attrs.asdict(done))
    else:
        typer.echo(
            f"{done.inbox:,} inbox rows, {done.dead_letters:,} dead letters and {done.changes:,} "
            f"changes forgotten, {done.messages:,} messages removed, "
            f"{done.compressed:,} chunks compressed"
        )
    return OK
