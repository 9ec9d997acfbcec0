"""Shards move between living relays, and away from those that died or slept (P3, P9)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from stand import Stand, stand, until

from telegram_hybrid.schema.postgres.tables import SHARDS
from telegram_hybrid.settings import Settings

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

PROGRAM = Path(__file__).with_name("relaying.py")
LEASE = 6.0
CHANNELS = tuple(range(-1032, -1000))

#: Who deleted what, and whose the shard was.
WATCH = """
CREATE TABLE {s}.deletions (id bigint, by text, owner text);
CREATE FUNCTION {s}.watch() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO {s}.deletions
    SELECT OLD.id, current_setting('application_name'), owner
    FROM {s}.relay_shards WHERE shard = OLD.shard;
    RETURN OLD;
END $body$;
CREATE TRIGGER watch BEFORE DELETE ON {s}.outbox FOR EACH ROW EXECUTE FUNCTION {s}.watch();
"""


@pytest.fixture
def at(telegram_settings: Settings, rabbitmq: Any) -> Iterator[Stand]:
    with stand(telegram_settings, rabbitmq.url) as ready:
        ready.consumer(lambda event, tx: None).declare()
        with ready.engine.begin() as connection:
            connection.exec_driver_sql(WATCH.format(s=ready.schema))
        yield ready


class Relays:
    """Relays in processes, by name."""

    def __init__(self, at: Stand, folder: Path) -> None:
        self._at = at
        self.log = {f"relay-{n}": folder / f"{n}.log" for n in range(4)}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        for name in names:
            options = {
                "database": self._at.settings.database_url,
                "schema": self._at.schema,
                "exchange": self._at.topology.exchange,
                "broker": self._at.settings.broker_url,
                "owner": name,
                "lease_seconds": LEASE,
                "log": str(self.log[name]),
            }
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            self.processes[name] = subprocess.Popen(
                [sys.executable, str(PROGRAM), json.dumps(options)], env=environment
            )

    def signal(self, name: str, number: int) -> None:
        self.processes[name].send_signal(number)

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()

    def shares(self) -> dict[str, int]:
        """How many shards each holds whose time is not over."""
        rows = self._at.rows(
            "SELECT owner FROM {s}.relay_shards WHERE expires_at > clock_timestamp()"
        )
        return dict(Counter(row.owner for row in rows))

    def published(self, name: str) -> list[tuple[float, float, int]]:
        """When, until when the lease was good, and which event."""
        lines = self.log[name].read_text().splitlines() if self.log[name].exists() else []
        return [(float(t), float(end), int(n)) for t, end, n in map(str.split, lines)]


def evenly(relays: Relays, *names: str) -> None:
    wanted = {name: SHARDS // len(names) for name in names}
    began = time.monotonic()
    until(lambda: relays.shares() == wanted, 60.0)
    print(f"{len(names)} relays share evenly after {time.monotonic() - began:.1f} s")


def test_two_relays_then_four_then_one_killed_and_one_asleep(at: Stand, tmp_path: Path) -> None:
    """Nobody publishes or deletes what is another's by now, and all channels keep their order."""
    relays = Relays(at, tmp_path)
    fed, stop = [0], Event()

    def feed() -> None:
        while not stop.is_set():
            at.feed(64, CHANNELS)
            fed[0] += 64
            stop.wait(0.05)

    writer = Thread(target=feed)
    try:
        relays.start("relay-0", "relay-1")
        evenly(relays, "relay-0", "relay-1")
        writer.start()
        relays.start("relay-2", "relay-3")
        evenly(relays, *relays.log)
        until(lambda: all(relays.published(name) for name in relays.log))

        relays.signal("relay-0", signal.SIGKILL)
        began = time.monotonic()
        until(lambda: sum(n for name, n in relays.shares().items() if name != "relay-0") == SHARDS)
        moved = time.monotonic() - began
        print(f"all shards of the killed one are taken over after {moved:.1f} s")
        assert moved < LEASE

        relays.signal("relay-1", signal.SIGSTOP)
        slept_at = time.monotonic()
        until(lambda: "relay-1" not in relays.shares())
        until(lambda: sum(relays.shares().values()) == SHARDS)
        time.sleep(max(0.0, slept_at + LEASE - time.monotonic()))
        woke_at = time.monotonic()
        relays.signal("relay-1", signal.SIGCONT)
        until(lambda: any(t > woke_at + 1.0 for t, _, _ in relays.published("relay-1")), 60.0)
        stop.set()
        writer.join()
        until(lambda: at.outbox() == [], 60.0)
    finally:
        stop.set()
        relays.stop()
    for name in relays.log:
        late = [entry for entry in relays.published(name) if entry[0] > entry[1]]
        assert late == [], f"{name} published after its lease"
    for row in at.rows("SELECT * FROM {s}.deletions"):
        assert row.by == row.owner
    events = at.taken()
    assert len({event.sequence for event in events}) == fed[0]
    print(f"{fed[0]} events, {len(events) - fed[0]} of them twice")
    for channel in CHANNELS:
        order = [event.sequence for event in events if event.channel_id == channel]
        first_time = list(dict.fromkeys(order))
        assert first_time == sorted(first_time)
