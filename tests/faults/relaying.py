"""A relay in a process of its own; run by test_relay_shards.

Usage: relaying.py JSON, with the keys database, schema, exchange, broker, owner, lease_seconds,
log. Ends on SIGTERM. Appends to `log` for each event: when it was written (seconds of the
monotonic clock, which all processes of a machine share), until when the lease was good, its id.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path
from time import monotonic
from typing import Any

from telegram_hybrid.connect.broker import open_broker
from telegram_hybrid.connect.postgres import open_engine
from telegram_hybrid.delivery import publisher
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
    build = publisher._amqp_message
    with Path(options["log"]).open("a", buffering=1) as log:

        def noted(envelope: Any) -> Any:
            number = envelope.headers["cloudEvents_sequence"]
            log.write(f"{monotonic()} {relay._holding.valid_until} {number}\n")
            return build(envelope)

        publisher._amqp_message = noted
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        relay.run(stop)


if __name__ == "__main__":
    main()
