"""What `consume` does with an event: call somebody's function, or print a line of JSON."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

import msgspec

from telegram_hybrid.cli.output import drop_stdout
from telegram_hybrid.delivery.subscription import Handler, Subscription
from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Event


def load_function(name: str) -> Handler | Subscription:
    """Import "module:function", also from the current directory. Raises `InvalidInput`."""
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise InvalidInput("MODULE:FUNCTION", f"{name!r} has no colon, as in app:on_message")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InvalidInput("MODULE:FUNCTION", f"cannot import {module_name}: {error}") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise InvalidInput("MODULE:FUNCTION", f"{module_name} has no {path}") from error
    if not callable(found):
        raise InvalidInput("MODULE:FUNCTION", f"{name} is not callable")
    handler: Handler | Subscription = found
    return handler


def print_event(event: Event, _tx: Any) -> None:
    """Write one event as a line of JSON.

    Its message is in `message`, defaults left out; what somebody's own event tells in `payload`.
    """
    line = {
        "event_id": event.event_id,
        "type": event.type,
        "channel_id": event.channel_id,
        "sequence": event.sequence,
        "occurred_at": event.occurred_at,
        "payload" if event.message_id is None else "message": msgspec.Raw(
            event.payload_json().encode()
        ),
    }
    try:
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads any more, as after `| head`: stop as if told so. Raised on, so that this
        # event counts as not consumed.
        drop_stdout()
        os.kill(os.getpid(), signal.SIGTERM)
        raise
