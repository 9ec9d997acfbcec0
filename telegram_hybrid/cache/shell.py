"""MessageCache: the blocking shell that performs the protocol's requests with redis-py."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from redis import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from telegram_hybrid.cache import protocol
from telegram_hybrid.cache.protocol import Fill, Flag, Get, Lease, Lifetimes, Load
from telegram_hybrid.cache.stats import CacheStats, Tally
from telegram_hybrid.cache.wake import Wake
from telegram_hybrid.model import Change, Message
from telegram_hybrid.schema.redis import scripts, values
from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.schema.redis.scripts import Call
from telegram_hybrid.schema.redis.values import Window

T = TypeVar("T")
_log = logging.getLogger("telegram_hybrid.cache")
_new_token = partial(secrets.token_hex, 8)
_UNREACHABLE = "unreachable"


class MessageCache:
    """Cache-aside reads of messages, head windows and seen flags, and their invalidation.

    `redis` is a client with `decode_responses` off (`connect.redis.open_redis` makes one); with
    None every read goes to its loader (promise P7). Lifetimes are seconds; `window_size` is the
    most messages a window holds.

    A loader is called at most once per read, with the ids that the cache did not answer. It must
    begin its snapshot when it is called and see committed rows only: never read through the cache
    inside an open transaction (P2). Errors of Redis never reach the caller; a loader's always do.

    Threads may share one. After restoring an older database, delete our keys: seen flags are
    believed without asking.
    """

    def __init__(
        self,
        redis: Redis | None,
        keys: Keys,
        *,
        message_ttl: float = 3600.0,
        seen_ttl: float = 7200.0,
        window_ttl: float = 3600.0,
        lease_ttl: float = 10.0,
        window_size: int = 100,
    ) -> None:
        if window_size < 1:
            raise ValueError(f"window_size: expected at least 1, got {window_size}")
        self.keys = keys
        self.window_size = window_size
        self._redis = redis
        self._lives = Lifetimes(
            message=message_ttl, seen=seen_ttl, window=window_ttl, lease=lease_ttl
        )
        self._tally = Tally()
        self._problems: set[str] = set()
        self._wake = Wake(self._publish_wake)

    def get_many(
        self,
        channel_id: int,
        message_ids: Iterable[int],
        load: Callable[[list[int]], dict[int, Message]],
    ) -> dict[int, Message]:
        """Return {message_id: message} of those that are stored, deleted ones included."""
        if self._redis is None:
            return load(ids) if (ids := list(dict.fromkeys(message_ids))) else {}
        reading = protocol.read_messages(
            self.keys, self._lives, channel_id, message_ids, _new_token
        )
        return self._perform(self._redis, reading, load)

    def window(self, channel_id: int, load: Callable[[int], Window]) -> Window | None:
        """Return the head window of a channel, from the cache or just loaded for it.

        `load` is given `window_size` and returns `Window.of` that many rows. None means there is
        none to be had (no Redis, or another reader is building it): ask the database for exactly
        what is needed.
        """
        if self._redis is None:
            return None
        reading = protocol.read_window(self.keys, self._lives, channel_id, _new_token)
        return self._perform(self._redis, reading, lambda _: load(self.window_size))

    def seen(
        self, channel_id: int, message_ids: Iterable[int], load: Callable[[list[int]], set[int]]
    ) -> set[int]:
        """Return those ids of a channel that are stored, deleted ones included."""
        if self._redis is None:
            return load(ids) if (ids := list(dict.fromkeys(message_ids))) else set()
        reading = protocol.read_seen(self.keys, self._lives, channel_id, message_ids)
        return self._perform(self._redis, reading, load)

    def invalidate(self, changes: Iterable[Change]) -> bool:
        """Make the cache forget what committed changes made stale; one round trip for all.

        Returns False if Redis failed it, wholly or in part: then the relay has to repeat it. That
        is never raised, because the commit has happened.
        """
        request = protocol.invalidation(self.keys, self._lives, changes)
        if self._redis is None or not request.entries:
            return True
        return self._ask(self._redis, request) is True

    def wake(self) -> None:
        """Tell relays that rows were committed: at once, or at the end of `wake.INTERVAL`."""
        if self._redis is not None:
            self._wake()

    def stats(self) -> CacheStats:
        """Return the counts of this process so far."""
        return self._tally.read()

    def close(self) -> None:
        """Drop a wake that is still to come. The client stays open; its maker closes it."""
        self._wake.close()

    def _perform(
        self, redis: Redis, reading: protocol.Reading[T], load: Callable[[list[int]], Any]
    ) -> T:
        reply: Any = None
        while True:
            try:
                request = reading.send(reply)
            except StopIteration as done:
                answer: protocol.Answer[T] = done.value
                break
            reply = load(request.ids) if isinstance(request, Load) else self._ask(redis, request)
        self._tally.add(hits=answer.hits, misses=answer.misses)
        return answer.value

    def _ask(self, redis: Redis, request: protocol.RedisRequest) -> Any:
        """Perform one request; None if Redis failed it."""
        kind = type(request).__name__
        try:
            reply, error = self._reply(redis, request)
        except (RedisError, OSError) as failure:
            self._failed(_UNREACHABLE, failure)
            return None
        if error is not None:
            self._failed(kind, error)
        elif self._problems:
            self._succeeded(kind)
        return reply

    def _reply(self, redis: Redis, request: protocol.RedisRequest) -> tuple[Any, Exception | None]:
        """Return the reply and, if Redis refused any of the request, the first refusal."""
        if isinstance(request, Get):
            return _get(redis, request.keys), None
        if isinstance(request, Flag):
            return None, _first_error(_flag(redis, request))
        replies = _run(redis, [self._call(entry) for entry in request.entries])
        answered = [reply for reply in replies if not isinstance(reply, Exception)]
        reply: Any = None
        if isinstance(request, Lease):
            reply = [not isinstance(reply, Exception) and reply[0] == 1 for reply in replies]
            if discarded := sum(discarded for _, discarded in answered):
                self._tally.add(discarded=discarded)
                _log.warning("discarded %d undecodable or foreign values under our keys", discarded)
        elif isinstance(request, Fill):
            self._tally.add(fills=answered.count(1), fills_refused=answered.count(0))
        else:
            self._tally.add(invalidations=len(answered))
            reply = len(answered) == len(replies)
        return reply, _first_error(replies)

    def _call(
        self, entry: protocol.LeaseEntry | protocol.FillEntry | protocol.InvalidateEntry
    ) -> Call:
        match entry:
            case protocol.LeaseEntry(key, token, seconds, undecodable):
                return scripts.lease(self.keys, key, token, seconds, undecodable=undecodable)
            case protocol.FillEntry(key, token, version, value, seconds):
                return scripts.fill(self.keys, key, token, version, value, seconds)
            case protocol.InvalidateEntry(key, version, seconds):
                return scripts.invalidate(self.keys, key, version, seconds)

    def _publish_wake(self) -> bool:
        try:
            if self._redis is not None:
                self._redis.publish(self.keys.wake, b"")
        except (RedisError, OSError) as error:
            self._failed(_UNREACHABLE, error)
            return False
        return True

    def _failed(self, problem: str, error: Exception) -> None:
        self._tally.add(errors=1)
        if problem not in self._problems:
            self._problems.add(problem)
            _log.warning("Redis %s: %s; reads go to the database meanwhile", problem, error)

    def _succeeded(self, kind: str) -> None:
        self._problems -= {_UNREACHABLE, kind}
        if not self._problems:
            _log.info("Redis answers again")


def _get(redis: Redis, keys: Sequence[str]) -> Any:
    if len(keys) > 1:
        return redis.mget(keys)
    try:
        return [redis.get(keys[0])]
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        # Not bytes of ours whatever they are: undecodable, so the lease discards it.
        return [b""]


def _flag(redis: Redis, request: Flag) -> list[Any]:
    pipeline = redis.pipeline(transaction=False)
    for key in request.keys:
        pipeline.set(key, values.SEEN, px=scripts.milliseconds(request.seconds))
    return pipeline.execute(raise_on_error=False)


def _run(redis: Redis, calls: Sequence[Call]) -> list[Any]:
    """Run scripts in one round trip; an error stands in its reply's place.

    A server that does not know a script (restarted, promoted, SCRIPT FLUSH) is sent its text.
    """
    pipeline = redis.pipeline(transaction=False)
    for call in calls:
        pipeline.evalsha(call.script.sha, len(call.keys), *call.keys, *call.args)
    replies = pipeline.execute(raise_on_error=False)
    unknown = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown:
        for call in (calls[index] for index in unknown):
            pipeline.eval(call.script.text, len(call.keys), *call.keys, *call.args)
        for index, reply in zip(unknown, pipeline.execute(raise_on_error=False), strict=True):
            replies[index] = reply
    return replies


def _first_error(replies: Sequence[Any]) -> Exception | None:
    return next((reply for reply in replies if isinstance(reply, Exception)), None)
