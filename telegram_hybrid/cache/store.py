"""Store: performs the protocol's requests, one round trip each if they are not very large."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import compress
from time import monotonic
from typing import Any

import attrs
import redis.exceptions
from redis import Redis
from redis.exceptions import NoScriptError, RedisError

from telegram_hybrid.cache import writes
from telegram_hybrid.cache.breaker import SLOW
from telegram_hybrid.cache.gate import Gate
from telegram_hybrid.cache.ledger import Stale
from telegram_hybrid.cache.listening import Fills
from telegram_hybrid.cache.protocol import Lifetimes
from telegram_hybrid.cache.requests import (
    Await,
    Fill,
    FillEntry,
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
    size,
)
from telegram_hybrid.cache.stats import Tally
from telegram_hybrid.cache.sweep import sweep
from telegram_hybrid.connect.redis import MOST, Command, ask
from telegram_hybrid.model import ChannelWrite
from telegram_hybrid.schema.redis import scripts, values
from telegram_hybrid.schema.redis.keys import Keys, Kind
from telegram_hybrid.schema.redis.scripts import Call

_log = logging.getLogger("telegram_hybrid.cache")
_UNREACHABLE = "unreachable"
#: Channels in one round trip of invalidations that are repeated.
_BATCH = 100
#: Tombstones that are read in one round trip.
_STEP = 1000


class Store:
    """One Redis. `ask` never raises what Redis did: its reply is None then, as the protocol says.

    It is None, too, and at once, while the gate is shut. `capacity` is the most messages that a
    window is patched to hold.
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
        self._reported: set[str] = set()
        self._fills = Fills(redis, keys.filled)
        self.gate = Gate(self._redis.ping, self._repay, self._fills.wake_all)

    def ask(self, request: RedisRequest) -> Any:
        """Perform one request; None if Redis failed it."""
        gate = self.gate
        turn = gate.turn  # before it is looked whether hits are trusted: they may cease to be
        if not gate.trusted:
            allowed = self._allowed(request)
            if allowed is None:
                self._tally.add(skipped=1)
                return None
            request = allowed
        kind = type(request).__name__
        began = monotonic()
        try:
            reply, error = self._reply(request)
        except (RedisError, OSError) as failure:
            self._lost(failure)
            if isinstance(request, Invalidate):
                gate.owe(request.writes)
            return None
        took = monotonic() - began
        gate.answered(took if took <= SLOW else took / (1 + size(request) // MOST))
        if error is not None:
            self._failed(kind, error)
        elif self._problems:
            self._succeeded(kind)
        if gate.turn != turn and isinstance(request, Get | GetResult | Fill):
            return None  # nor does a fill on another server prove anything
        return reply

    def recall(self, heads: Mapping[int, int], owed: Set[int]) -> None:
        """Have it forget what is `owed`, and channels whose tombstone is older than their version.

        A tombstone alone does not tell: a later write may have raised it past what is owed.
        """
        told, channels = dict[int, int](), list(heads)
        try:
            for at in range(0, len(channels) if self.gate.reachable else 0, _STEP):
                some = channels[at : at + _STEP]
                found = self._each(map(self._keys.tombstone, some))
                told |= {c: _version(each) for c, each in zip(some, found, strict=True)}
        except (RedisError, OSError) as failure:
            self._lost(failure)
        untold = {c: v for c, v in heads.items() if c in owed or told.get(c, 0) < v}
        if untold:
            self.gate.owe_whole(untold)

    def begin(self) -> None:
        """Have locks and threads of our own, in a forked child; its gate sees to itself."""
        self._fills.begin()

    def wait(self, request: Await) -> None:
        """Sleep until the key is filled or given up."""
        if self.gate.trusted:
            self._tally.add(waits=1)
            self._fills.wait(request.key, request.seconds, lambda: self._is_awaited(request.key))

    def publish_wake(self) -> bool:
        """Tell relays that something was committed; return whether Redis took it."""
        if not self.gate.reachable:
            return False
        try:
            self._redis.publish(self._keys.wake, b"")
        except (RedisError, OSError) as error:
            self._lost(error)
            return False
        return True

    def close(self) -> None:
        """Stop listening for fills, and mending."""
        self.gate.close()
        self._fills.close()

    def _allowed(self, request: RedisRequest) -> RedisRequest | None:
        """What is still to be asked while hits are not trusted; None for nothing."""
        self.gate.mend()
        if isinstance(request, Mark | Invalidate):
            if self.gate.reachable:
                return request
            if isinstance(request, Invalidate):
                self.gate.owe(request.writes)
        elif isinstance(request, Fill) and self.gate.reachable:
            # Readers elsewhere wait for the lease.
            given_up = [attrs.evolve(entry, value=b"") for entry in request.entries]
            return Fill(request.channel_id, given_up)
        return None

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
                return self._each([key, *map(self._keys.generation, channel_ids)]), None
            case Generations():
                return self._generations(request), None
            case SetResult(key, value, seconds):
                life = scripts.milliseconds(seconds)
                return None, _first_error(self._ask([("SET", key, value, "PX", life)]))
            case Mark(written):
                replies = self._run(writes.marks(self._keys, written))
                return _first_error(replies) is None, _first_error(replies)
            case Invalidate():
                return self._invalidate(request)

    def _invalidate(self, request: Invalidate) -> tuple[Any, Exception | None]:
        turn = self.gate.turn
        wake: list[Command] = [("PUBLISH", self._keys.wake, b"")] if request.wake else []
        replies = self._run(self._invalidations(request.writes), wake)
        done: dict[bool, list[ChannelWrite]] = {True: [], False: []}
        for write, reply in zip(request.writes, replies, strict=True):
            done[not isinstance(reply, Exception)].append(write)
        self._tally.add(**{"repaired" if request.repair else "invalidations": len(done[True])})
        lasting = self.gate.applied(done[True], turn)
        if done[False]:
            self.gate.owe(done[False])
        return lasting and not done[False], _first_error(replies)

    def _invalidations(self, written: Sequence[ChannelWrite]) -> list[Call]:
        return writes.invalidations(self._keys, written, self._lives, capacity=self._capacity)

    def _repay(self, stale: Stale) -> bool:
        """Repeat invalidations, and return whether all of them were applied."""
        owed = stale.writes()
        try:
            for at in range(0, len(owed), _BATCH):
                replies = self._run(self._invalidations(owed[at : at + _BATCH]))
                error = _first_error(replies)
                if error is not None:
                    self._failed(Invalidate.__name__, error)
                    return False
                self._tally.add(repaired=len(replies))
            swept = sweep(self._redis, self._keys, stale)
        except (RedisError, OSError) as failure:
            self._lost(failure)
            return False
        if swept:
            _log.warning(
                "Redis may have missed invalidations of %d of our values: they were deleted", swept
            )
        return True

    def _lease(self, request: Lease) -> tuple[Any, Exception | None]:
        replies = self._run(
            [
                scripts.lease(
                    self._keys,
                    e.key,
                    e.token,
                    e.seconds,
                    undecodable=e.undecodable,
                    missing=e.missing,
                )
                for e in request.entries
            ]
        )
        grants = []
        for entry, reply in zip(request.entries, replies, strict=True):
            if isinstance(reply, Exception):
                grants.append(Grant(False))
                continue
            grants.append(Grant(reply[0] == 1, reply[2] / 1000))
            if reply[1]:
                self._discarded(entry.key)
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
        if self._lives.last:
            self._remember(list(compress(request.entries, stored)))
        meant = [bool(entry.value) for entry in request.entries]
        refused = sum(reply == 0 and wanted for reply, wanted in zip(replies, meant, strict=True))
        self._tally.add(fills=sum(stored), fills_refused=refused)
        return stored, _first_error(replies)

    def _remember(self, entries: Sequence[FillEntry]) -> None:
        life = scripts.milliseconds(self._lives.last)
        commands: list[Command] = []
        for entry in entries:
            name = self._keys.parse(entry.key)
            if name is not None and name.kind in (Kind.MESSAGE, Kind.WINDOW):
                commands.append(("SET", self._keys.last(entry.key), entry.value, "PX", life))
        self._ask(commands)

    def last(self, key: str) -> bytes | None:
        """Return what was last known under `key`; None if nothing, or if Redis cannot be asked."""
        if not self._lives.last or not self.gate.reachable:
            return None
        try:
            found: Any = self._redis.get(self._keys.last(key))
        except (RedisError, OSError) as error:
            self._lost(error)
            return None
        return found if isinstance(found, bytes) else None

    def _get(self, keys: Sequence[str]) -> Any:
        if len(keys) > MOST:
            return [v for at in range(0, len(keys), MOST) for v in self._get(keys[at : at + MOST])]
        (reply,) = found = self._ask([("MGET", *keys) if len(keys) > 1 else ("GET", *keys)])
        if isinstance(reply, Exception):
            if not str(reply).startswith("WRONGTYPE"):
                raise reply
            # Not bytes of ours whatever they are: undecodable, so the lease discards it.
            return [b""]
        if len(keys) > 1:
            found = reply
        if max(map(len, filter(None, found)), default=0) > values.MAX_BYTES:
            for at, value in enumerate(found):
                if value is not None and len(value) > values.MAX_BYTES:
                    # At once: not every read asks for a lease, and none should read it again.
                    self._discard(keys[at])
                    found[at] = None
        return found

    # Keys of several slots: one round trip, but not one command.
    def _each(self, names: Iterable[str]) -> list[bytes | None]:
        replies = self._ask([("GET", name) for name in names])
        return [reply if isinstance(reply, bytes) else None for reply in replies]

    def _generations(self, request: Generations) -> list[bytes] | None:
        life = scripts.milliseconds(self._lives.generation)
        names = [self._keys.generation(channel_id) for channel_id in request.channel_ids]
        begun: list[Command] = [("SET", name, request.token, "NX", "PX", life) for name in names]
        replies = self._ask(begun + [("GET", name) for name in names])[len(names) :]
        for channel_id, reply in zip(request.channel_ids, replies, strict=True):
            if reply is not None and not _is_generation(reply):
                self._discard(self._keys.generation(channel_id))
        return replies if all(map(_is_generation, replies)) else None

    def _flag(self, request: Flag) -> list[Any]:
        life = scripts.milliseconds(request.seconds)
        return self._ask([("SET", key, values.SEEN, "PX", life) for key in request.keys])

    def _is_awaited(self, key: str) -> bool:
        """Whether a lease is held by somebody who was told to say when it is done."""
        if not self.gate.trusted:
            return False
        try:
            held = self._redis.get(self._keys.lease(key))
        except (RedisError, OSError) as error:
            self._lost(error)
            return False
        return isinstance(held, bytes) and held.endswith(b"+")

    def _run(self, calls: Sequence[Call], then: Sequence[Command] = ()) -> list[Any]:
        """Run scripts in one round trip; an error stands in its reply's place.

        What is to be done `then` goes with them. A server that does not know a script (restarted,
        promoted, SCRIPT FLUSH) is sent its text.
        """
        known = [_run("EVALSHA", call.script.sha, call) for call in calls]
        replies = self._ask([*known, *then])[: len(calls)]
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        told = self._ask([_run("EVAL", calls[i].script.text, calls[i]) for i in unknown])
        for index, reply in zip(unknown, told, strict=True):
            replies[index] = reply
        return replies

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        return ask(self._redis, commands) if commands else []

    def _discard(self, key: str) -> None:
        self._redis.unlink(key)
        self._discarded(key)

    def _discarded(self, key: str) -> None:
        """Count a value that was none of ours, and report the first of its kind."""
        self._tally.add(discarded=1)
        name = self._keys.parse(key)
        kind = str(name.kind) if name else "?"
        if kind not in self._reported:
            self._reported.add(kind)
            _log.warning(
                "%s held a value that we cannot read: deleted, as will be all others under %r"
                " keys; stats() counts them. Does another program write there?",
                key,
                kind,
            )

    def _lost(self, error: Exception) -> None:
        """Redis did not answer."""
        self._failed(_UNREACHABLE, error)
        self.gate.failed(timeout=_is_timeout(error))

    def _failed(self, problem: str, error: Exception) -> None:
        self._tally.add(errors=1)
        if problem not in self._problems:
            self._problems.add(problem)
            _log.warning("Redis %s: %s; reads go to the database meanwhile", problem, error)

    def _succeeded(self, kind: str) -> None:
        self._problems -= {_UNREACHABLE, kind}
        if not self._problems:
            _log.info("Redis answers again")


def _run(command: str, script: str, call: Call) -> Command:
    return command, script, len(call.keys), *call.keys, *call.args


def _first_error(replies: Sequence[Any]) -> Exception | None:
    return next((reply for reply in replies if isinstance(reply, Exception)), None)


def _is_timeout(error: BaseException) -> bool:
    kinds = (TimeoutError, redis.exceptions.TimeoutError)
    return isinstance(error, kinds) or isinstance(error.__cause__, kinds)


def _version(tombstone: bytes | None) -> int:
    return int(tombstone) if tombstone and len(tombstone) <= 19 and tombstone.isdigit() else 0


def _is_generation(reply: Any) -> bool:
    return isinstance(reply, bytes) and len(reply) <= 64 and reply.isalnum()
