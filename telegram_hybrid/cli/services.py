"""`relay` and `consume`: the two services, in the foreground until SIGTERM or Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from telegram_hybrid.cli.errors import FAILED, OK

if TYPE_CHECKING:
    from collections.abc import Callable

    from telegram_hybrid.delivery.worker import Worker

_Json = Annotated[
    bool, typer.Option("--json", help="At the end, print the counters as one JSON object.")
]


def relay(json: _Json = False) -> int:
    """Carry committed events from the outbox to the broker until SIGTERM or Ctrl-C.

    Start as many as you like: they share the work. What a stopped or killed one left is carried
    by the others, or when it is started again.

    Example:

        python -m telegram_hybrid relay
    """
    from telegram_hybrid.cli.output import log_to_stderr
    from telegram_hybrid.cli.servers import store
    from telegram_hybrid.connect.broker import close_quietly, open_broker

    log_to_stderr()
    with store() as hybrid:
        worker = hybrid.relay()
        # Fail at once if a server is not there at the start; later it is waited for.
        waiting = worker.backlog()
        close_quietly(open_broker(hybrid.settings.broker_url or ""))
        return _serve(
            worker, f"relay: {waiting.events:,} events wait", lambda: worker.counters, json
        )


def consume(
    handler: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:FUNCTION",
            help="A function (event, tx), or one made by @th.consumer; what it writes with tx "
            "commits together with the inbox row. Without it, events are printed as lines of JSON.",
            show_default=False,
        ),
    ] = None,
    queue: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The consumer's queue, made if missing; @th.consumer names one."
        ),
    ] = None,
    bind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help='Routing key, such as "telegram.channel.-1001649127710"; may be repeated. '
            "All channels unless given.",
            show_default=False,
        ),
    ] = None,
    json: _Json = False,
) -> int:
    """Hand the events of a queue to a function, each effectively once, or print them.

    Runs until SIGTERM or Ctrl-C.

    Example:

        python -m telegram_hybrid consume --queue look --bind "telegram.channel.#"
    """
    from telegram_hybrid.cli.events import load_function, print_event
    from telegram_hybrid.cli.output import log_to_stderr
    from telegram_hybrid.cli.servers import store

    if json and handler is None:
        raise typer.BadParameter("--json needs MODULE:FUNCTION: events take stdout otherwise")
    function = print_event if handler is None else load_function(handler)
    log_to_stderr()
    with store() as hybrid:
        worker = hybrid.consume(function, queue=queue, bind=bind)
        worker.declare()
        return _serve(worker, "consume: waiting for events", lambda: worker.counters, json)


def _serve(worker: Worker, hello: str, counters: Callable[[], Any], json: bool) -> int:
    """Run `worker` until a signal or its failure; the signals are waited for, never handled.

    A handler would run between any two instructions, also while this thread holds the very lock
    it needs. A second Ctrl-C ends the process at once.
    """
    import signal

    from telegram_hybrid.cli.errors import say
    from telegram_hybrid.cli.output import print_json

    ending = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    worker.start()
    say(f"{hello}; Ctrl-C stops")
    try:
        while worker.running and signal.sigtimedwait(ending, 0.2) is None:
            continue
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)
    stopped = worker.stop()
    if worker.failure is not None:
        raise worker.failure
    done: dict[str, int] = attrs.asdict(counters())
    if json:
        print_json(done)
    counted = [f"{count:,} {name}" for name, count in done.items() if count]
    say(f"stopped: {', '.join(counted) or 'nothing came'}")
    if not stopped:
        say("a handler did not come to its end; its event will be handed out again")
    return OK if stopped else FAILED
