"""Store: performs the protocol's requests with redis-py, one round trip each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from telegram_hybrid.cache import writes
from telegram_hybrid.cache.listening import Fills
from telegram_hybrid.cache.protocol import Lifetimes
from telegram_hybrid.cache.requests import (
    Await,
    Fill,
    Flag,
    Generations,
    Get,
    GetResult,
    Grant,
    Invalidate,
    Lease,
    Mark,
    RedisRequest,
    SetResult,
)
from telegram_hybrid.cache.stats import Tally
from telegram_hybrid.schema.redis import scripts, values
from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.schema.redis.scripts import Call

_log = logging.getLogger("telegram_hybrid.cache")
_UNREACHABLE = "unreachable"


class Store:
    """One Redis. `ask` never raises what Redis did: its reply is None then, as the protocol says.

    `capacity` is the most messages that a window is patched to hold.
    """

    def __init__(
        self, redis: Redis, keys: Keys, lives: Lifetimes, capacity: int, tally: Tally
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._lives = lives
        self._capacity = capacity
        self._tally = tally
        self._problems: set[str] = set()
        self._fills = Fills(redis, keys.filled)

    def ask(self, request: RedisRequest) -> Any:
        """Perform one request; None if Redis failed it."""
        kind = type(request).__name__
        try:
            reply, error = self._reply(request)
        except (RedisError, OSError) as failure:
            self._failed(_UNREACHABLE, failure)
            return None
        if error is not None:
            self._failed(kind, error)
        elif self._problems:
            self._succeeded(kind)
        return reply

    def wait(self, request: Await) -> None:
        """Sleep until the key is filled or given up."""
        self._fills.wait(request.key, request.seconds, lambda: self._is_leased(request.key))

    def publish_wake(self) -> bool:
        """Tell relays that something was committed; return whether Redis took it."""
        try:
            self._redis.publish(self._keys.wake, b"")
        except (RedisError, OSError) as error:
            self._failed(_UNREACHABLE, error)
            return False
        return True

    def close(self) -> None:
        """Stop listening for fills."""
        self._fills.close()

    def _reply(self, request: RedisRequest) -> tuple[Any, Exception | None]:
        """Return the reply and, if Redis refused any of the request, the first refusal."""
        match request:
            case Get(keys):
                return self._get(keys), None
            case Flag():
                return None, _first_error(self._flag(request))
            case Lease():
                return self._lease(request)
            case Fill():
                return self._fill(request)
            case GetResult(key, channel_ids):
                return self._get_result(key, channel_ids), None
            case Generations():
                return self._generations(request), None
            case SetResult(key, value, seconds):
                self._redis.set(key, value, px=scripts.milliseconds(seconds))
                return None, None
            case Mark(written):
                replies = self._run(writes.marks(self._keys, written))
                return _first_error(replies) is None, _first_error(replies)
            case Invalidate(written):
                replies = self._run(
                    writes.invalidations(
                        self._keys,
                        written,
                        tombstone=self._lives.tombstone,
                        capacity=self._capacity,
                    )
                )
                applied = [one for one in replies if not isinstance(one, Exception)]
                self._tally.add(invalidations=len(applied))
                return len(applied) == len(replies), _first_error(replies)

    def _lease(self, request: Lease) -> tuple[Any, Exception | None]:
        replies = self._run(
            [
                scripts.lease(self._keys, e.key, e.token, e.seconds, undecodable=e.undecodable)
                for e in request.entries
            ]
        )
        grants, discarded = [], 0
        for reply in replies:
            if isinstance(reply, Exception):
                grants.append(Grant(False))
            else:
                grants.append(Grant(reply[0] == 1, reply[2] / 1000))
                discarded += reply[1]
        if discarded:
            self._tally.add(discarded=discarded)
            _log.warning("discarded %d undecodable or foreign values under our keys", discarded)
        return grants, _first_error(replies)

    def _fill(self, request: Fill) -> tuple[Any, Exception | None]:
        channel_id = request.channel_id
        replies = self._run(
            [
                scripts.fill(self._keys, channel_id, e.key, e.token, e.as_of, e.value, e.seconds)
                for e in request.entries
            ]
        )
        stored = [reply == 1 for reply in replies]
        meant = [bool(entry.value) for entry in request.entries]
        refused = sum(reply == 0 and wanted for reply, wanted in zip(replies, meant, strict=True))
        self._tally.add(fills=sum(stored), fills_refused=refused)
        return stored, _first_error(replies)

    def _get(self, keys: Sequence[str]) -> Any:
        if len(keys) > 1:
            return self._redis.mget(keys)
        try:
            return [self._redis.get(keys[0])]
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            # Not bytes of ours whatever they are: undecodable, so the lease discards it.
            return [b""]

    # A query's keys are of several slots: one round trip, but not one command.
    def _get_result(self, key: str, channel_ids: Sequence[int]) -> list[bytes | None]:
        pipeline = self._redis.pipeline(transaction=False)
        for name in (key, *map(self._keys.generation, channel_ids)):
            pipeline.get(name)
        replies = pipeline.execute(raise_on_error=False)
        return [reply if isinstance(reply, bytes) else None for reply in replies]

    def _generations(self, request: Generations) -> list[bytes] | None:
        pipeline = self._redis.pipeline(transaction=False)
        life = scripts.milliseconds(self._lives.generation)
        for name in map(self._keys.generation, request.channel_ids):
            pipeline.set(name, request.token, nx=True, px=life)
            pipeline.get(name)
        replies = pipeline.execute(raise_on_error=False)[1::2]
        found = [reply for reply in replies if isinstance(reply, bytes)]
        return found if len(found) == len(replies) else None

    def _flag(self, request: Flag) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for key in request.keys:
            pipeline.set(key, values.SEEN, px=scripts.milliseconds(request.seconds))
        return pipeline.execute(raise_on_error=False)

    def _is_leased(self, key: str) -> bool:
        try:
            return bool(self._redis.exists(self._keys.lease(key)))
        except (RedisError, OSError):
            return False

    def _run(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in one round trip; an error stands in its reply's place.

        A server that does not know a script (restarted, promoted, SCRIPT FLUSH) is sent its text.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            pipeline.evalsha(call.script.sha, len(call.keys), *call.keys, *call.args)
        replies = pipeline.execute(raise_on_error=False)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            for call in (calls[index] for index in unknown):
                pipeline.eval(call.script.text, len(call.keys), *call.keys, *call.args)
            for index, reply in zip(unknown, pipeline.execute(raise_on_error=False), strict=True):
                replies[index] = reply
        return replies

    def _failed(self, problem: str, error: Exception) -> None:
        self._tally.add(errors=1)
        if problem not in self._problems:
            self._problems.add(problem)
            _log.warning("Redis %s: %s; reads go to the database meanwhile", problem, error)

    def _succeeded(self, kind: str) -> None:
        self._problems -= {_UNREACHABLE, kind}
        if not self._problems:
            _log.info("Redis answers again")


def _first_error(replies: Sequence[Any]) -> Exception | None:
    return next((reply for reply in replies if isinstance(reply, Exception)), None)
