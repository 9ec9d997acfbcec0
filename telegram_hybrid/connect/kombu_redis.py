"""A Redis transport for kombu that cannot lose the message it is taking.

kombu's own (5.7) takes a message with BRPOP and then writes it to a hash of unacknowledged ones:
a process killed between the two has lost it, and one killed later gets it back only after the
visibility timeout, an hour by default. Here the queue hands a message over with BLMOVE, into a
list of what one consumer has in flight, so it is always in one list or the other. A consumer that
starts, and every one that idles, puts back what belonged to consumers that no longer have a
connection. What is acknowledged is removed in batches; being killed before that only repeats
messages, and the inbox of a consumer ignores repetitions.

What lies in the queue is what kombu's own transport writes and reads. One queue per channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from queue import Empty
from time import monotonic
from typing import Any
from uuid import uuid4

import msgspec
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils import json as kombu_json
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

#: Seconds between two looks for messages of consumers that are gone.
RECLAIM_INTERVAL = 5.0
#: Messages taken in one step, and acknowledgements sent in one.
BATCH = 32

_PREFIX = "telegram_hybrid.in_flight."

# Newest first in the in-flight list, next one last in the queue: moved back like this, the
# messages stand in the queue as they stood before.
_PUT_BACK = """
local moved = 0
while redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT') do moved = moved + 1 end
redis.call('SREM', KEYS[3], ARGV[1])
return moved
"""

_TAKE = """
local taken = {}
for n = 1, tonumber(ARGV[1]) do
    local message = redis.call('LMOVE', KEYS[1], KEYS[2], 'RIGHT', 'LEFT')
    if not message then break end
    taken[n] = message
end
return taken
"""


class QoS(virtual.QoS):  # type: ignore[misc]
    """What was delivered and not yet acknowledged; the truth about it is the in-flight list."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge; Redis hears of it with the next batch."""
        self.channel.settle(delivery_tag)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Drop the message, or put it back as the next one of its queue."""
        self.channel.settle(delivery_tag, requeue=requeue)
        super().ack(delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        """Put everything in flight back (on closing)."""
        self.channel.put_back_own()
        self._delivered.clear()

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Put back what consumers left that are gone; kombu calls this whenever it idles."""
        self.channel.reclaim()


class Channel(kombu_redis.Channel):  # type: ignore[misc]
    """A channel that consumes from at most one queue, and publishes in batches."""

    QoS = QoS
    # As text: base64 would add a third, and JSON within JSON reads as it is.
    body_encoding = "utf-8"
    # Seconds; kombu would wait for ever for an answer on a connection that died silently.
    socket_timeout = 10.0
    socket_connect_timeout = 5.0
    socket_keepalive = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The name of every connection of this channel. As long as the server knows one by it,
        # nobody else touches what this channel has in flight.
        self.client_name = f"telegram_hybrid-{uuid4().hex}"
        self._queue: str | None = None
        self._announced: object = None
        self._reclaimed_at = 0.0
        self._taken: dict[str, bytes] = {}
        self._acknowledged: list[bytes] = []
        super().__init__(*args, **kwargs)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        # Nothing is tried twice behind our back: whoever uses the connection decides.
        never = {"retry": Retry(NoBackoff(), 0), "retry_on_timeout": False}
        return {**super()._connparams(asynchronous), **never}

    # Publishing

    def publish_all(
        self, exchange: str, messages: Sequence[tuple[str, dict[str, Any]]]
    ) -> list[bool]:
        """Publish (routing key, prepared message) pairs in order, in one atomic step.

        Returns for each whether a queue is bound for it; what has none is not published.
        """
        bound = self._routes(exchange, {routing_key for routing_key, _ in messages})
        queues: dict[str, list[bytes]] = {}
        for routing_key, message in messages:
            self._inplace_augment_message(message, exchange, routing_key)
            encoded = msgspec.json.encode(message)
            for queue in bound[routing_key]:
                queues.setdefault(queue, []).append(encoded)
        if queues:
            with self.conn_or_acquire() as client, client.pipeline(transaction=True) as pipe:
                for queue, items in queues.items():
                    pipe.lpush(queue, *items)
                pipe.execute()
        return [bool(bound[routing_key]) for routing_key, _ in messages]

    def _routes(self, exchange: str, routing_keys: set[str]) -> dict[str, set[str]]:
        table, kind = self.get_table(exchange), self.typeof(exchange)
        return {key: kind.lookup(table, exchange, key, None) for key in routing_keys}

    # Consuming

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Consume from `queue`, after putting back what a killed consumer of it left."""
        self._settle_on(queue)
        self.reclaim(at_once=True)
        return super().basic_consume(queue, *args, **kwargs)

    def _get(self, queue: str) -> dict[str, Any]:
        self._settle_on(queue)
        self._announce(self)
        with self.conn_or_acquire() as client:
            item = client.lmove(queue, _in_flight(queue, self.client_name), "RIGHT", "LEFT")
        if item is None:
            raise Empty
        return self._noted(item)

    def _settle_on(self, queue: str) -> None:
        if self._queue not in (None, queue):
            raise ValueError(f"this channel consumes from {self._queue}: open another for {queue}")
        self._queue = queue

    def _announce(self, since: object) -> None:
        """Enter this channel among the queue's consumers, once since `since` is what it is."""
        if self._announced is not since:
            with self.conn_or_acquire() as client:
                client.sadd(_owners(self._queue or ""), self.client_name)
            self._announced = since

    def _brpop_start(self, timeout: float | None = None) -> None:
        self.flush()
        if self._queue is None or not self.active_queues:
            return
        connection = self.client.connection
        # Again after each reconnection: others may have taken this channel for gone meanwhile.
        self._announce(connection._sock)
        self._in_poll = connection
        self._brpop_sent_at = monotonic()
        connection.send_command(
            "BLMOVE",
            self._queue,
            _in_flight(self._queue, self.client_name),
            "RIGHT",
            "LEFT",
            timeout or self.brpop_timeout,
        )

    def _brpop_read(self, **options: Any) -> bool:
        connection = self.client.connection
        try:
            try:
                item = self.client.parse_response(connection, "BLMOVE", **options)
            except self.connection_errors:
                connection.disconnect()
                raise
        finally:
            self._in_poll = None
        if item is None:
            raise Empty
        self._hand_over(item)
        for more in self._take():
            self._hand_over(more)
        return True

    def _take(self) -> list[bytes]:
        room = self.qos.can_consume_max_estimate()
        room = BATCH if room is None else min(room, BATCH)
        if self._closing or room <= 0 or self._queue is None:
            return []
        with self.conn_or_acquire() as client:
            keys = [self._queue, _in_flight(self._queue, self.client_name)]
            taken: list[bytes] = client.eval(_TAKE, len(keys), *keys, room)
            return taken

    def _hand_over(self, item: bytes) -> None:
        self.connection._deliver(self._noted(item), self._queue)

    def _noted(self, item: bytes) -> dict[str, Any]:
        message = _decoded(item)
        self._taken[message["properties"]["delivery_tag"]] = item
        return message

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Acknowledge; with `multiple`, also what was delivered before and is still open."""
        if multiple and delivery_tag in self._taken:
            for earlier in list(takewhile(lambda tag: tag != delivery_tag, self._taken)):
                self.qos.ack(earlier)
        self.qos.ack(delivery_tag)

    def settle(self, delivery_tag: str, *, requeue: bool = False) -> None:
        """Remove a message from what is in flight, now or with the next batch."""
        item = self._taken.pop(delivery_tag, None)
        if item is None:
            return
        self._acknowledged.append(item)
        if requeue or len(self._acknowledged) >= BATCH:
            self.flush(requeue=item if requeue else None)

    def flush(self, requeue: bytes | None = None) -> None:
        """Tell Redis what was acknowledged."""
        if not self._acknowledged or self._queue is None:
            return
        with self.conn_or_acquire() as client, client.pipeline(transaction=True) as pipe:
            for item in self._acknowledged:
                pipe.lrem(_in_flight(self._queue, self.client_name), -1, item)
            if requeue is not None:
                pipe.rpush(self._queue, requeue)
            pipe.execute()
        self._acknowledged.clear()

    # Looking

    def depth(self, queue: str) -> tuple[int, int]:
        """Return how many messages wait in `queue`, and how many consumers of it are connected."""
        with self.conn_or_acquire() as client:
            return self._size(queue), len(_connected(client, queue)[0])

    # Putting back

    def put_back_own(self) -> None:
        """Put what this channel has in flight back into its queue, except what it acknowledged."""
        if self._queue is not None:
            self.flush()
            self._taken.clear()
            self._put_back(self.client_name)

    def reclaim(self, *, at_once: bool = False) -> None:
        """Put back what consumers of this queue had in flight that have no connection any more."""
        now = monotonic()
        if self._queue is None or (not at_once and now - self._reclaimed_at < RECLAIM_INTERVAL):
            return
        self._reclaimed_at = now
        with self.conn_or_acquire() as client:
            _, gone = _connected(client, self._queue)
        for owner in gone:
            self._put_back(owner)

    def _put_back(self, owner: str) -> None:
        queue = self._queue
        if queue is None:
            return
        with self.conn_or_acquire() as client:
            keys = [_in_flight(queue, owner), queue, _owners(queue)]
            client.eval(_PUT_BACK, len(keys), *keys, owner)

    def close(self) -> None:
        """Finish a take that is under way, put back what is in flight, and disconnect."""
        if not self.closed and self._queue is not None:
            self._closing = True
            try:
                if self._in_poll:
                    # Otherwise the server might still move a message for a reader that is gone.
                    self._await_take()
                self.put_back_own()
            except (RedisError, OSError):
                # The server is gone, or it is us whom it dropped: the next consumer reclaims.
                self._in_poll = None
        super().close()

    def _await_take(self) -> None:
        try:
            self.client.parse_response(self.client.connection, "BLMOVE")
        finally:
            self._in_poll = None


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """kombu's Redis transport with channels as above."""

    Channel = Channel
    # A "socket://" address is for the channel to read, not for kombu's parser of URLs.
    can_parse_url = True
    # Seconds that BLMOVE waits, and so the longest that closing a consumer waits for it.
    brpop_timeout = 0.25


def _in_flight(queue: str, owner: str) -> str:
    return f"{_PREFIX}{queue}.{owner}"


def _owners(queue: str) -> str:
    return f"{_PREFIX}{queue}"


def _connected(client: Any, queue: str) -> tuple[set[str], set[str]]:
    """The names of a queue's consumers: those that have a connection, and those that are gone."""
    # In this order: whoever is in the first answer was connected before the second.
    owners = {owner.decode() for owner in client.smembers(_owners(queue))}
    connected = {entry["name"] for entry in client.client_list()}
    return owners & connected, owners - connected


def _decoded(item: bytes) -> dict[str, Any]:
    """Read what a publisher wrote; whatever is not a kombu message becomes the body of one."""
    try:
        message = msgspec.json.decode(item)
        properties = message["properties"]
        tables = (message["headers"], properties.setdefault("delivery_info", {}))
        if type(message["body"]) is dict:
            # How kombu's own transport writes bytes.
            message["body"] = kombu_json.loads(msgspec.json.encode(message["body"]))
        if (
            isinstance(message["body"], str | bytes)
            and isinstance(properties["delivery_tag"], str)
            and all(isinstance(table, dict) for table in tables)
        ):
            return message  # type: ignore[no-any-return]
    except (msgspec.DecodeError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {
        "body": item.decode("utf-8", "backslashreplace"),
        "headers": {},
        "properties": {"delivery_tag": uuid4().hex, "delivery_info": {}, "body_encoding": "utf-8"},
    }
