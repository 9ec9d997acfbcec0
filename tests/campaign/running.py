"""A running system under faults: three writers, two relays, two consumers, and who harms them."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import amqp
import attrs
import kombu
from servers.daemon import end
from servers.pausable import Pausable
from servers.stack import NativeStack

from campaign.history import Committed, History, Seen
from campaign.keeper import Keeper
from campaign.plan import Fault, Step
from campaign.worker import message_of, note
from telegram_hybrid import connect
from telegram_hybrid.connect.broker import close_quietly, open_broker
from telegram_hybrid.delivery.relay import LEASE
from telegram_hybrid.errors import ServiceError
from telegram_hybrid.schema.broker import open_envelope, routing_key

#: The last two share their outbox shards with the first two.
CHANNELS = (-1001, -1002, -1003, -1004, -1005, -1006, -1017, -1018)
#: Between the library's exchange and the queues, so that a channel's binding goes in one step.
FAN = "telegram.campaign.fan"
QUEUE = "telegram.campaign.handled"
#: Beside the consumers' queue, read when all is over: what was published, in its order.
TAP = "telegram.campaign.tap"
FULL = "telegram.campaign.full"
_CRASH = signal.SIGQUIT

TABLES = """
CREATE SCHEMA campaign;
CREATE TABLE campaign.positions (channel bigint PRIMARY KEY, n bigint NOT NULL DEFAULT 0);
CREATE TABLE campaign.ledger (channel bigint, position bigint, token text);
CREATE TABLE campaign.effects (n bigserial, channel bigint, token text, sequence bigint);
"""


class Campaign:
    """`inject` one fault after another, then `settle`, then read the `history`."""

    def __init__(self, stack: NativeStack, logs: Path, *, seed: int, rate: float) -> None:
        self._stack, self._logs = stack, logs
        self._database = Pausable(stack.ports["postgres"])
        self._broker = Pausable(stack.ports["rabbitmq"])
        plain = {"pooler_url": None, "redis_url": None}
        #: Past the proxies, for the test itself.
        self.direct = attrs.evolve(stack.settings, **plain)
        self._through = attrs.evolve(
            self.direct,
            database_url=_with_port(self.direct.database_url, self._database.port),
            broker_url=_with_port(self.direct.broker_url or "", self._broker.port),
        )
        self._seed, self._rate = seed, rate
        self.keepers: list[Keeper] = []
        self.injected: list[Fault] = []

    # Begin and end

    def prepare(self) -> None:
        """Make tables and queues."""
        with connect(self.direct) as hybrid:
            hybrid.migrate()
            hybrid.consume(
                lambda event, tx: None, queue=QUEUE, bind=_NEVER, single_active=True
            ).declare()
        with self._stack.connect() as database:
            database.execute(TABLES)
            for channel in CHANNELS:
                database.execute("INSERT INTO campaign.positions VALUES (%s)", [channel])
        with self._channel() as channel:
            channel.exchange_declare(FAN, "topic", durable=True, auto_delete=False)
            quorum = {"x-queue-type": "quorum"}
            channel.queue_declare(TAP, durable=True, auto_delete=False, arguments=quorum)
            for queue in (QUEUE, TAP):
                channel.queue_bind(queue, FAN, routing_key="#")
        self._bind()
        # A quorum queue that is killed within about 3 s of its declaration comes back empty.
        time.sleep(4.0)

    def begin(self) -> None:
        """Prepare, start everybody, and see the first events handled."""
        self.prepare()
        for number in range(3):
            self._keep("write", number, rate=self._rate / 3, options={})
        for number in range(2):
            # Lease and batch are the defaults. The first relay gets its shards back under its name
            # when it is killed; those of the second the first has to take over.
            options: dict[str, Any] = {"max_attempts": 10_000}
            if number == 0:
                options["owner"] = "relay-0"
            self._keep("relay", number, options=options)
        for number, batch in enumerate((1, 20)):
            self._keep("consume", number, options={"batch": batch, "single_active": True})
        self._await("the first effects", lambda: self.count("effects") > 20, 180.0)

    def settle(self, seconds: float = 240.0) -> str | None:
        """Stop the writers, wait until every event is handled, stop all; say what is left over."""
        for each in self.keepers:
            if each.role == "write":
                each.stop()
        left = None
        try:
            self._await("the end", self._all_handled, seconds)
        except AssertionError as error:
            left = f"{error}: {self._left()}"
        for each in self.keepers:
            each.stop()
        return left

    def close(self) -> None:
        """End all processes and proxies."""
        for each in self.keepers:
            each.close()
        self._database.close()
        self._broker.close()

    def history(self) -> History:
        """What the ledger, the tap and the effects say."""
        with self._stack.connect() as database:
            ledger = database.execute("SELECT channel, position, token FROM campaign.ledger")
            committed = [Committed(*row) for row in ledger.fetchall()]
            effects = database.execute(
                "SELECT channel, token, sequence FROM campaign.effects ORDER BY n"
            )
            handled = [Seen(*row) for row in effects.fetchall()]
        return History(committed, self._tapped(), handled)

    def count(self, table: str) -> int:
        """The rows of one of the campaign's tables."""
        with self._stack.connect() as database:
            return int(database.execute(f"SELECT count(*) FROM campaign.{table}").fetchone()[0])

    # Faults

    def inject(self, step: Step) -> None:
        """Do one fault, and wait until it has had its effect, not until it is overcome."""
        time.sleep(step.pause)
        rng = random.Random(step.seed)
        {
            Fault.KILL_WRITER: lambda: self._one("write", rng).kill(),
            Fault.KILL_RELAY: lambda: self._one("relay", rng).kill(),
            Fault.KILL_CONSUMER: lambda: self._one("consume", rng).kill(),
            Fault.FREEZE_RELAY: lambda: self._one("relay", rng).pause(LEASE * 1.3),
            Fault.CUT_BROKER: self._broker.cut,
            Fault.CUT_DATABASE: self._database.cut,
            Fault.MUTE_BROKER: lambda: _mute(self._broker, rng),
            Fault.MUTE_DATABASE: lambda: _mute(self._database, rng),
            Fault.KILL_BROKER: self._kill_broker,
            Fault.RESTART_DATABASE: lambda: self._restart_database(None),
            Fault.CRASH_DATABASE: lambda: self._restart_database(_CRASH),
            Fault.FULL_QUEUE: lambda: self._full_queue(rng),
            Fault.UNROUTABLE: lambda: self._unroutable(rng),
            Fault.STEAL_LEASE: lambda: self._steal(rng),
            Fault.EXPIRE_LEASE: self._expire,
            Fault.LATE_COMMIT: lambda: self._late_commit(rng),
        }[step.fault]()
        self.injected.append(step.fault)

    def _kill_broker(self) -> None:
        self._stack.rabbitmq.kill()
        self._stack.rabbitmq.start()
        # It may have forgotten a binding made just before: declarations are not synced to disk.
        self._bind()

    def _restart_database(self, signum: signal.Signals | None) -> None:
        end([self._stack.postgres], signum)
        self._stack.postgres.start()

    def _full_queue(self, rng: random.Random) -> None:
        """A queue of one event that rejects the next, bound to one channel or to all."""
        key = rng.choice([routing_key(rng.choice(CHANNELS)), "telegram.channel.#"])
        with self._channel() as channel:
            limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
            channel.queue_declare(FULL, durable=True, auto_delete=False, arguments=limits)
            channel.queue_bind(FULL, self.direct.exchange, routing_key=key)
            self._until_refused()
            channel.queue_delete(FULL)

    def _unroutable(self, rng: random.Random) -> None:
        """For a while nobody is bound to one channel's key."""
        key = routing_key(rng.choice(CHANNELS))
        with self._channel() as channel:
            channel.exchange_unbind(FAN, self.direct.exchange, key)
            self._until_refused()
            channel.exchange_bind(FAN, self.direct.exchange, key)

    def _until_refused(self) -> None:
        """Until some event was refused and its channel is frozen, or nothing came for a while."""
        refused = "SELECT count(*) FROM {}.outbox WHERE not_before > clock_timestamp()"
        deadline = time.monotonic() + 2.0
        with self._stack.connect() as database:
            while time.monotonic() < deadline:
                statement = refused.format(self.direct.database_schema)
                if database.execute(statement).fetchone()[0]:
                    return
                time.sleep(0.02)

    def _steal(self, rng: random.Random) -> None:
        """Another owner has some shards, and goes away without giving them back."""
        shards = rng.sample(range(16), rng.randint(4, 16))
        with self._stack.connect() as database:
            database.execute(
                f"UPDATE {self.direct.database_schema}.relay_shards"
                " SET owner = 'thief', epoch = epoch + 1,"
                " expires_at = clock_timestamp() + interval '0.7 s' WHERE shard = ANY(%s)",
                [shards],
            )

    def _expire(self) -> None:
        """The database's clock has passed every lease, and no relay knows."""
        with self._stack.connect() as database:
            database.execute(
                f"UPDATE {self.direct.database_schema}.relay_shards"
                " SET expires_at = clock_timestamp() - interval '1 s' WHERE owner IS NOT NULL"
            )

    def _late_commit(self, rng: random.Random) -> None:
        """A draws its number before B, on another channel of the same shard, and commits after
        B has been published."""
        early, late = rng.choice([(-1001, -1017), (-1018, -1002)])
        numbered, published = threading.Event(), threading.Event()

        def commit(channel: int, meanwhile: Callable[[], object]) -> None:
            with suppress(ServiceError), hybrid.transaction() as tx:
                token = f"late.{time.time_ns()}.{channel}"
                tx.messages.save(message_of(channel, time.time_ns() // 10_000 * 8 + 7, token))
                note(tx, channel, token)
                meanwhile()

        def first() -> None:
            commit(late, lambda: (numbered.set(), published.wait(10.0)))

        with connect(self.direct) as hybrid:
            thread = threading.Thread(target=first)
            thread.start()
            numbered.wait(10.0)
            commit(early, lambda: None)
            self._drained(early)
            published.set()
            thread.join()

    def _drained(self, channel: int) -> None:
        """Until nothing of a channel waits to be published, two seconds at most."""
        waiting = f"SELECT count(*) FROM {self.direct.database_schema}.outbox WHERE channel_id = %s"
        deadline = time.monotonic() + 2.0
        with self._stack.connect() as database:
            while time.monotonic() < deadline:
                if not database.execute(waiting, [channel]).fetchone()[0]:
                    return
                time.sleep(0.02)

    # Plants

    def run_quietly(self) -> None:
        """One relay and one consumer carry what waits, and go; nobody writes, nobody harms."""
        began = len(self.keepers)
        self._keep("relay", 0, options={})
        self._keep("consume", 0, options={"single_active": True})
        waiting = f"SELECT count(*) FROM {self.direct.database_schema}.outbox"

        def carried() -> bool:
            with self._stack.connect() as database, self._channel() as channel:
                left = database.execute(waiting).fetchone()[0]
                return not left and not channel.queue_declare(QUEUE, passive=True).message_count

        self._await("the quiet end", carried, 120.0)
        for each in self.keepers[began:]:
            each.stop()  # finishes what is in hand

    # Means

    def _bind(self) -> None:
        with self._channel() as channel:
            for each in CHANNELS:
                channel.exchange_bind(FAN, self.direct.exchange, routing_key(each))

    def _keep(self, role: str, number: int, **more: Any) -> None:
        settings = attrs.asdict(self._through)
        log = self._logs / f"{role}-{number}.log"
        common = {"channels": CHANNELS, "queue": QUEUE, "bind": _NEVER, "seed": self._seed}
        self.keepers.append(
            Keeper(log, role=role, number=number, settings=settings, **common, **more)
        )

    def _one(self, role: str, rng: random.Random) -> Keeper:
        return rng.choice([each for each in self.keepers if each.role == role])

    def _all_handled(self) -> bool:
        with self._stack.connect() as database:
            row = database.execute(
                "SELECT (SELECT count(*) FROM campaign.ledger)"
                " - (SELECT count(DISTINCT token) FROM campaign.effects)"
            ).fetchone()
            return bool(row[0] == 0)

    def _left(self) -> dict[str, list[Any]]:
        """Where events that are not handled may be, for a report."""
        schema = self.direct.database_schema
        questions = {
            "outbox": "SELECT shard, channel_id, count(*), min(id), max(attempts), max(not_before),"
            f" min(last_error) FROM {schema}.outbox GROUP BY 1, 2",
            "leases": "SELECT shard, owner, epoch, expires_at - clock_timestamp()"
            f" FROM {schema}.relay_shards ORDER BY 1",
            "dead letters": f"SELECT queue, channel_id, reason FROM {schema}.dead_letters",
        }
        with self._stack.connect() as database:
            left = {what: database.execute(ask).fetchall() for what, ask in questions.items()}
        with self._channel() as channel:
            queues = (QUEUE, TAP, self.direct.exchange + ".dlq")
            answers = [channel.queue_declare(queue, passive=True) for queue in queues]
            left["queues"] = [tuple(answer) for answer in answers]
        return left

    def _await(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come within {seconds:g} s"
            time.sleep(0.2)

    @contextmanager
    def _channel(self) -> Any:
        connection: kombu.Connection = open_broker(self.direct.broker_url or "")
        try:
            yield connection.channel()
        finally:
            close_quietly(connection)

    def _tapped(self) -> list[Seen]:
        """Everything in the tap, in its order."""
        found: list[Seen] = []
        with self._channel() as channel:

            def arrived(message: amqp.Message) -> None:
                event = open_envelope(message.body, message.headers).event()
                found.append(Seen(event.channel_id, event.message.text, event.sequence))
                channel.basic_ack(message.delivery_tag)

            waiting = channel.queue_declare(TAP, passive=True).message_count
            channel.basic_qos(0, 500, False)
            channel.basic_consume(TAP, callback=arrived)
            while len(found) < waiting:
                channel.connection.drain_events(timeout=20.0)
        return found


_NEVER = "telegram.campaign.never"  # the consumers' queue is bound behind FAN instead


def _with_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    user, _, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}"))


def _mute(proxy: Pausable, rng: random.Random) -> None:
    """The servers do what they are told, and their answers are lost: nobody knows what was done."""
    proxy.hold()
    time.sleep(rng.uniform(0.05, 0.5))
    proxy.cut()
