"""One writer, relay or consumer, in a process that is killed over and over.

Usage: worker.py JSON, with the keys role, number, seed, settings, channels, queue and options.

The program forks a child that works, and obeys lines on stdin: "kill" (SIGKILL, and a new child),
"pause SECONDS" (SIGSTOP for so long), "stop" (SIGTERM: finish what is in hand; ends the program).
Forking saves the imports. It answers each line, and reports a child that died by itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from telegram_hybrid import Event, Hybrid, Message, Settings, Source, connect
from telegram_hybrid.errors import ServiceError

Options = dict[str, Any]


class TakenBackError(Exception):
    """A writer changes its mind: nothing of the transaction may be seen by anybody."""


def write(hybrid: Hybrid, options: Options, rng: random.Random, stop: threading.Event) -> None:
    """Save and edit messages, some at once, some slowly, some to be rolled back."""
    life = f"{options['number']}.{os.getpid()}"
    ids = _Ids(options["number"])
    known: list[tuple[int, int]] = []
    made = 0

    while not stop.wait(rng.expovariate(options["rate"])):
        try:
            with hybrid.transaction() as tx:
                written = []
                channels = rng.sample(options["channels"], rng.choice([1, 1, 1, 2, 3]))
                # All channels in the first call, which takes their locks in one order.
                rounds = [channels, *([each] for each in channels if rng.random() < 0.5)]
                for group in rounds:
                    fresh = [(channel, ids.next()) for channel in group]
                    if len(group) == 1 and known and rng.random() < 0.3:
                        fresh = [each for each in known[-20:] if each[0] == group[0]][-1:] or fresh
                    messages = []
                    for channel, number in fresh:
                        made += 1
                        messages.append(message_of(channel, number, f"{life}.{made}"))
                    tx.messages.save_batch(messages)
                    for each in messages:
                        note(tx, each.channel_id, each.text)
                    written += fresh
                if rng.random() < 0.15:
                    time.sleep(rng.uniform(0.0, 0.3))
                if rng.random() < 0.1:
                    raise TakenBackError  # noqa: TRY301
        except (TakenBackError, ServiceError):
            continue
        known += written
        del known[:-100]


def message_of(channel: int, number: int, token: str) -> Any:
    """A message whose text is its token; a later one of the same number is an edit."""
    return Message(
        channel_id=channel,
        message_id=number,
        sent_at=_SENT,
        edited_at=datetime.now(UTC),
        text=token,
        source=Source.BOT,
    )


def note(tx: Any, channel: int, token: str) -> None:
    """Put a write into the ledger; the counter's row stays locked until the commit."""
    tx.connection.execute(
        text(
            "WITH next AS (UPDATE campaign.positions SET n = n + 1"
            " WHERE channel = :channel RETURNING n)"
            " INSERT INTO campaign.ledger SELECT :channel, n, :token FROM next"
        ),
        {"channel": channel, "token": token},
    )


def relay(hybrid: Hybrid, options: Options, _rng: random.Random, stop: threading.Event) -> None:
    """Relay until told to stop."""
    _run(hybrid.relay(**options["options"]), stop)


def consume(hybrid: Hybrid, options: Options, rng: random.Random, stop: threading.Event) -> None:
    """Write each event's token into a table; fail now and then."""

    def handler(event: Event, tx: Any) -> None:
        tx.connection.execute(
            text("INSERT INTO campaign.effects (channel, token, sequence) VALUES (:c, :t, :s)"),
            {"c": event.channel_id, "t": event.message.text, "s": event.sequence},
        )
        if rng.random() < 0.005:
            raise RuntimeError("the handler fails, as planned")

    queue, bind = options["queue"], options["bind"]
    _run(hybrid.consume(handler, queue=queue, bind=bind, **options["options"]), stop)


def _run(worker: Any, stop: threading.Event) -> None:
    worker.start()
    while worker.running and not stop.wait(0.1):
        continue
    worker.stop()
    if worker.failure is not None:
        raise worker.failure


ROLES: dict[str, Callable[[Hybrid, Options, random.Random, threading.Event], None]] = {
    "write": write,
    "relay": relay,
    "consume": consume,
}
_SENT = datetime(2024, 1, 1, tzinfo=UTC)


class _Ids:
    """Message ids that no other writer has, and none before in this one's earlier lives."""

    def __init__(self, writer: int) -> None:
        self._writer, self._last = writer, 0

    def next(self) -> int:
        self._last = max(self._last + 1, time.time_ns() // 10_000)
        return self._last * 8 + self._writer


def fork(options: Options, life: int) -> int:
    """Start a child that plays its role; return its pid."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        rng = random.Random(f"{options['seed']}.{options['role']}.{options['number']}.{life}")
        with connect(Settings(**options["settings"])) as hybrid:
            ROLES[options["role"]](hybrid, options, rng, stop)
        status = 0
    except BaseException:  # noqa: BLE001  (told in the log, and by the exit code)
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> int:
    """Keep one child until told to stop."""
    options: Options = json.loads(sys.argv[1])
    life = 0
    child = fork(options, life)
    while True:
        if not select.select([sys.stdin], [], [], 0.2)[0]:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                _say(f"died {status}")
                life += 1
                child = fork(options, life)
            continue
        command, _, argument = sys.stdin.readline().strip().partition(" ")
        if command == "pause":
            os.kill(child, signal.SIGSTOP)
            time.sleep(float(argument))
            os.kill(child, signal.SIGCONT)
        elif command == "kill":
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            life += 1
            child = fork(options, life)
        else:  # stop, or the test is gone
            os.kill(child, signal.SIGTERM)
            _, status = os.waitpid(child, 0)
            _say(f"stopped {status}")
            return 0
        _say("done")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
