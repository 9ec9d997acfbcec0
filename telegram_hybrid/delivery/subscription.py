"""Subscription: a handler, what it is handed, and the queue and bindings it wants; made by
`@consumer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import attrs
from sqlalchemy import Connection

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Event
from telegram_hybrid.schema.broker import checked_name

#: Bind this for the events of all channels.
ALL_CHANNELS = "telegram.channel.#"

Handler = Callable[[Event, Any], object]


class HasConnection(Protocol):
    """What a consumer needs of a transaction: where to write the inbox row."""

    @property
    def connection(self) -> Connection:
        """The SQLAlchemy connection, in its transaction."""


@attrs.frozen(slots=True)
class PlainTransaction:
    """A transaction of which the handler gets only the connection."""

    connection: Connection


@attrs.frozen(slots=True)
class Subscription:
    """What `hybrid.consume` runs. Calling it calls the handler, as a unit test would."""

    handler: Handler
    queue: str
    bind: tuple[str, ...]

    def __call__(self, event: Event, tx: Any) -> object:
        """Handle one event in the open transaction `tx`."""
        return self.handler(event, tx)


def consumer(
    *, queue: str, bind: str | Sequence[str] = ALL_CHANNELS
) -> Callable[[Handler], Subscription]:
    """Make a function the handler of `queue`, which is bound by `bind` to the exchange.

        @th.consumer(queue="signals", bind="telegram.channel.-1001649127710")
        def on_message(event, tx): ...

    Run it with `hybrid.consume(on_message)`, or with the command `consume module:on_message`.
    Raises `InvalidInput` for a queue or routing key that the broker could not hold.
    """
    keys = (bind,) if isinstance(bind, str) else tuple(bind)
    checked_name("queue", queue)
    if not keys:
        raise InvalidInput("bind", "at least one routing key, such as telegram.channel.#")
    for at, key in enumerate(keys):
        checked_name(f"bind[{at}]", key)

    def subscribe(handler: Handler) -> Subscription:
        if not callable(handler):
            raise InvalidInput("handler", f"expected a function, got {type(handler).__name__}")
        return Subscription(handler, queue, keys)

    return subscribe
