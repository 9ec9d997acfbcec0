"""A relay in a process of its own; run by test_relay_shards.

Usage: relaying.py JSON, with the keys database, schema, exchange, broker, owner, lease_seconds,
log. Ends on SIGTERM. Appends to `log` for each event: when it was written to the socket (seconds
of the monotonic clock, which all processes of a machine share), until when the lease was good, its
id.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path
from time import monotonic
from typing import Any

from amqp.transport import _AbstractTransport as AbstractTransport

from telegram_hybrid.connect.broker import open_broker
from telegram_hybrid.connect.postgres import open_engine
from telegram_hybrid.delivery.publisher import AmqpPublisher
from telegram_hybrid.delivery.relay import Relay
from telegram_hybrid.schema.broker import Topology
from telegram_hybrid.settings import Settings


def main() -> None:
    """Relay until SIGTERM."""
    options: dict[str, Any] = json.loads(sys.argv[1])
    engine = open_engine(
        Settings(database_url=options["database"]), application_name=options["owner"]
    )
    relay = Relay(
        engine,
        options["schema"],
        lambda: open_broker(options["broker"]),
        topology=Topology(options["exchange"]),
        owner=options["owner"],
        lease_seconds=options["lease_seconds"],
    )
    send, write = AmqpPublisher.send, AbstractTransport.write
    burst: list[str] = []
    with Path(options["log"]).open("a", buffering=1) as log:

        def noted(self: Any, envelopes: Any, **options: Any) -> None:
            burst[:] = [envelope.headers["cloudEvents_sequence"] for envelope in envelopes]
            try:
                send(self, envelopes, **options)
            finally:
                burst.clear()  # it may have refused to write them, and close the connection next

        def written(self: Any, data: Any) -> None:
            now = monotonic()
            write(self, data)
            log.writelines(f"{now} {relay._holding.valid_until} {number}\n" for number in burst)
            burst.clear()

        AmqpPublisher.send, AbstractTransport.write = noted, written
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        relay.run(stop)


if __name__ == "__main__":
    main()
