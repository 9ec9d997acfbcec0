"""A relay and a consumer in a process that is killed over and over; run by test_delivery_kills.

Usage: killed_delivery.py JSON, with the keys database, schema, exchange, broker, queue, roles
("relay", "consume"), kills, seed, batch, plain (kombu's own Redis transport instead of ours).

The program forks a child that works, sends it SIGKILL after a random while, and does that `kills`
times; forking saves the imports. The last child works until nothing is left, or fails when
nothing has happened for `patience` seconds. Prints one line for each kill.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from typing import Any

import kombu
from sqlalchemy import text
from sqlalchemy.engine import Engine

from telegram_hybrid.connect.broker import open_broker
from telegram_hybrid.connect.postgres import open_engine, transaction
from telegram_hybrid.delivery.consumer import Consumer
from telegram_hybrid.delivery.relay import Relay
from telegram_hybrid.errors import CommitUnknown, DatabaseUnavailable
from telegram_hybrid.schema.broker import Topology
from telegram_hybrid.settings import Settings

#: Seconds that a child lives, after it is forked.
LIFE = (0.02, 0.45)
#: Seconds between two looks at what took effect.
LOOK = 0.1


def work(options: dict[str, Any]) -> None:
    """Relay and consume, as asked, until the expected number of events took effect."""
    engine = open_engine(Settings(database_url=options["database"]))
    schema, topology = options["schema"], Topology(options["exchange"])

    def broker() -> Any:
        if options["plain"]:
            return kombu.Connection(
                options["broker"],
                transport_options={"visibility_timeout": 1, "unacked_restore_throttle": 1},
            )
        return open_broker(options["broker"])

    def handler(event: Any, tx: Any) -> None:
        tx.connection.execute(
            text(f'INSERT INTO "{schema}".effects (sequence, channel_id) VALUES (:s, :c)'),
            {"s": event.sequence, "c": event.channel_id},
        )

    workers: list[Any] = []
    if "relay" in options["roles"]:
        workers.append(Relay(engine, schema, broker, topology=topology, owner="killed", batch=50))
    if "consume" in options["roles"]:
        workers.append(
            Consumer(
                engine,
                schema,
                broker,
                options["queue"],
                "telegram.channel.#",
                handler,
                topology=topology,
                batch=options["batch"],
                single_active=options["single_active"],
            )
        )
    for worker in workers:
        worker.start()
    applied = wait_for_all(engine, schema, options["events"], options["patience"])
    if applied < options["events"]:
        print("stuck at", applied, [each.counters for each in workers], file=sys.stderr)
        faulthandler.dump_traceback(all_threads=True)
        os._exit(1)
    for worker in workers:
        worker.stop()


def wait_for_all(engine: Engine, schema: str, events: int, patience: float) -> int:
    """How many took effect: all, or what has not grown for `patience` seconds.

    Counted in looks: a machine that stood still has not waited.
    """
    count = text(f'SELECT count(*) FROM "{schema}".effects')
    applied = looks = 0
    while applied < events and looks < patience / LOOK:
        time.sleep(LOOK)
        looks += 1
        with suppress(CommitUnknown, DatabaseUnavailable), transaction(engine) as connection:
            now: int = connection.execute(count).scalar_one()
            if now > applied:
                applied, looks = now, 0
    return applied


def main() -> None:
    """Kill children, then let one finish."""
    options = json.loads(sys.argv[1])
    random.seed(options["seed"])
    for kill in range(options["kills"]):
        child = os.fork()
        if child == 0:
            work(options)
            os._exit(0)
        time.sleep(random.uniform(*LIFE))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print("kill", kill, flush=True)
    work(options)


if __name__ == "__main__":
    main()
