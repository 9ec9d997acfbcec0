"""The cache-aside protocol, sans I/O: generators that yield requests and are sent the replies.

    hit    Get
    miss   Get -> Lease -> Load -> Fill          the one reader that is granted the lease
           Get -> Lease -> Await -> Get ...      everybody else
    write  lock the channel -> ... -> Mark -> commit -> Invalidate

Three rules make a fill safe. The load begins after the lease was granted, so it holds everything
that was committed before. A mark and an invalidation take the lease away, so a loader that may
have read the state before a commit cannot fill after it (promise P5). And nothing is filled that
was loaded while a writer held its channel's lock: such a writer may have marked before the lease
was granted. Together they keep hits as new as the last commit, also when the writer dies between
commit and invalidation, and when Redis loses keys; only a Redis that loses acknowledged writes,
or that a writer could not reach, falls back to what was last invalidated.

The reply to a request to Redis is None if Redis failed; the generator then asks it nothing more
and goes to the database, so that one read pays for one timeout at most (promise P7). Whatever
happens, a read yields `Load` at most once, and once for each key that the cache did not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from math import log
from random import random
from time import time
from typing import Any, Generic, TypeAlias, TypeVar

import attrs

from telegram_hybrid.cache.requests import (
    Await,
    Fill,
    FillEntry,
    Flag,
    Generations,
    Get,
    GetResult,
    Grant,
    Lease,
    LeaseEntry,
    Load,
    Loaded,
    Request,
    SetResult,
)
from telegram_hybrid.cache.window import after_from_cache, pages_after
from telegram_hybrid.model import Message
from telegram_hybrid.schema.redis import values
from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.schema.redis.values import Life, Run, Undecodable, Window

T = TypeVar("T")

#: How often a reader waits for what others load before it loads for itself. A write in between
#: ends up to three of their leases; under steady writes nobody should wait for long.
_PATIENCE = 4


@attrs.frozen(slots=True, kw_only=True)
class Lifetimes:
    """How long what we store lives, in seconds.

    Values live up to a tenth less, at random, so that what was filled together does not expire
    together. `last` is how long a message or window is remembered after it was filled, for readers
    that allow it to be stale; 0 for not at all. `early` is XFetch's beta: how eagerly hot values
    are loaded again before they expire, 0 for never.
    """

    message: float = 3600.0
    absent: float = 60.0
    seen: float = 7200.0
    window: float = 3600.0
    api: float = 30.0
    generation: float = 86400.0
    lease: float = 10.0
    last: float = 0.0
    early: float = 1.0

    @property
    def tombstone(self) -> float:
        """Longer than any load takes that began before it."""
        return max(self.message, self.window) + self.lease


@attrs.define(slots=True)
class Answer(Generic[T]):
    """What a read found, and how many of its keys the cache answered and did not.

    `early` of those that it did not were there, and loaded before they expired. `stale` are only
    what was last known.
    """

    value: T
    hits: int
    misses: int
    early: int = 0
    stale: int = 0


# The reply's type follows from the request; a generator's send type cannot say so.
Reading: TypeAlias = Generator[Request, Any, Answer[T]]


@attrs.frozen(slots=True)
class _Kind(Generic[T]):
    """How values of one kind are stored; a number, an id or a page's, names each in its channel.

    `decode(data, channel_id, number)` returns None for what is not such a value,
    `encode(loaded, number, life)` for what should not be stored. `pick(loaded, number)` finds it
    in what was loaded, `seconds(lives, loaded, number)` says how long it should live, and
    `enough(value)` whether a value, though right, answers the question.
    """

    decode: Callable[[bytes, int, int], tuple[T, Life] | None]
    encode: Callable[[Any, int, Life], bytes | None]
    pick: Callable[[Any, int], T]
    seconds: Callable[[Lifetimes, Any, int], float]
    enough: Callable[[T], bool] = lambda _: True


@attrs.frozen(slots=True, kw_only=True)
class Protocol:
    """The reads of one cache. `now` is the time in Unix seconds, `chance` is uniform in [0, 1)."""

    keys: Keys
    lives: Lifetimes
    new_token: Callable[[], str]
    now: Callable[[], float] = time
    chance: Callable[[], float] = random

    def message(self, channel_id: int, message_id: int) -> Reading[Message | None]:
        """Read one message, deleted or not; None if it is not stored."""
        key = self.keys.message(channel_id, message_id)
        return self._one(channel_id, key, message_id, [message_id], _MESSAGE)

    def messages(self, channel_id: int, message_ids: Iterable[int]) -> Reading[dict[int, Message]]:
        """Read messages of one channel: {message_id: message}, without those not stored."""
        names = self.keys.messages(channel_id, message_ids)
        answer = yield from self._many(channel_id, names, _MESSAGE)
        found = {number: one for number, one in answer.value.items() if one is not None}
        return Answer(found, answer.hits, answer.misses)

    def window(self, channel_id: int, limit: int | None) -> Reading[Window]:
        """Read the head window of a channel, with its newest `limit` messages.

        With None, as it is, and with all messages that it has.
        """
        return self._one(channel_id, self.keys.window(channel_id), 0, [], _window(limit))

    def after(
        self, channel_id: int, message_id: int, limit: int
    ) -> Reading[tuple[list[Message], int] | None]:
        """Look for what follows a message: as `after_from_cache` says, in one round trip.

        A page is right by itself, as the window is: what it answers needs no window. None, too, if
        a value cannot be decoded, or the window could be due for an early load; so it is read as
        `window` and `pages` do.
        """
        numbers = pages_after(message_id, limit)
        names = [self.keys.page(channel_id, number) for number in numbers]
        stored = yield Get([self.keys.window(channel_id), *names])
        if stored is None:
            return Answer(([], message_id), 0, 1)
        head, *others = stored
        try:
            window = Run(head, channel_id) if head is not None else None
            if window is not None and self._may_be_early(window.life):
                return Answer(None, 0, 0)
            pages = {
                number: Run.of_page(data, channel_id, number) if data is not None else None
                for number, data in zip(numbers, others, strict=True)
            }
            found = after_from_cache(window, pages, message_id, limit)
        except Undecodable:
            return Answer(None, 0, 0)
        return Answer(found, 0 if found is None else sum(each is not None for each in stored), 0)

    def pages(self, channel_id: int, numbers: Iterable[int]) -> Reading[dict[int, Window | None]]:
        """Read pages of a channel by number.

        A `Load` that is not guarded need not load any: then what the cache lacks is None.
        """
        names = {number: self.keys.page(channel_id, number) for number in numbers}
        return self._many(channel_id, names, _PAGE)

    def seen(self, channel_id: int, message_ids: Iterable[int]) -> Reading[set[int]]:
        """Find which messages are stored, deleted ones included.

        "Stored" is said only after the database said so, and is never unsaid: it needs no lease,
        no version and no invalidation.
        """
        names = self.keys.flags(channel_id, message_ids)
        if not names:
            return Answer(set(), 0, 0)
        flags = yield Get(list(names.values()))
        if flags is not None and flags.count(values.SEEN) == len(names):
            return Answer(set(names), len(names), 0)
        known = {i for i, flag in zip(names, flags or (), strict=False) if flag == values.SEEN}
        unknown = [number for number in names if number not in known]
        loaded: Loaded = yield Load(unknown)
        stored: Any = loaded.value
        if stored and flags is not None:
            flagged = [names[number] for number in unknown if number in stored]
            yield Flag(flagged, self.lives.seen)
        return Answer(known | stored, len(known), len(unknown))

    def result(self, name: str, digest: str, channel_ids: Sequence[int]) -> Reading[bytes]:
        """Read the result of a query over channels, as JSON.

        It is one of the channels' generations, which a mark and an invalidation end. The loader's
        reply is quiet if no writer held any of the channels' locks.
        """
        key = self.keys.api(name, digest)
        stored = yield GetResult(key, channel_ids)
        if stored is None:
            return Answer(values.encode_query((yield Load([])).value), 0, 1)
        data, *generations = stored
        if data is not None and None not in generations:
            found = values.decode_result(data, generations)
            if found is not None:
                return Answer(found, 1, 0)
        current = yield Generations(channel_ids, self.new_token())
        loaded: Loaded = yield Load([], current is not None)
        body = values.encode_query(loaded.value)
        if current is not None and loaded.quiet:
            seconds = self.lives.api * (1 - self.chance() / 10)
            value = values.encode_result(body, current)
            if value:
                yield SetResult(key, value, seconds)
        return Answer(body, 0, 1)

    def _one(
        self,
        channel_id: int,
        key: str,
        number: int,
        ids: Sequence[int],
        kind: _Kind[T],
    ) -> Reading[T]:
        """Read one value; of many readers that miss it, one loads it and the others wait."""
        for patience in range(_PATIENCE, -1, -1):
            stored = yield Get([key])
            if stored is None:
                return Answer(kind.pick((yield Load(ids)).value, number), 0, 1)
            data: bytes | None = stored[0]
            found = kind.decode(data, channel_id, number) if data is not None else None
            hit = found is not None and kind.enough(found[0])
            if found and hit and not self._is_early(found[1]):
                return Answer(found[0], 1, 0)
            token = self.new_token()
            entry = LeaseEntry(
                key,
                token,
                self.lives.lease,
                undecodable=data is not None and found is None,
                missing=data is None,
            )
            grants = yield from self._lease(channel_id, [entry], early=hit)
            grant = grants[0] if grants else Grant(False)
            if grant.granted:
                value = yield from self._load(channel_id, {number: key}, token, ids, kind)
                return Answer(kind.pick(value, number), 0, 1, early=int(hit))
            if found and hit:
                return Answer(found[0], 1, 0)
            if not grant.left or not patience:
                break
            # Not much longer than the lease: it may end a moment later than was said.
            yield Await(key, grant.left + 0.001)
        return Answer(kind.pick((yield Load(ids)).value, number), 0, 1)

    def _many(
        self, channel_id: int, names: Mapping[int, str], kind: _Kind[T]
    ) -> Reading[dict[int, T]]:
        """Read several values; what is missed is loaded at once, whoever else is loading it."""
        if not names:
            return Answer({}, 0, 0)
        stored = yield Get(list(names.values()))
        if stored is None:
            value = (yield Load(list(names))).value
            return Answer({number: kind.pick(value, number) for number in names}, 0, len(names))
        answers: dict[int, T] = {}
        missed: dict[int, bool] = {}
        for number, data in zip(names, stored, strict=True):
            found = kind.decode(data, channel_id, number) if data is not None else None
            if found is not None:
                answers[number] = found[0]
            else:
                missed[number] = data is not None
        hits = len(answers)
        if missed:
            token, lasts = self.new_token(), self.lives.lease
            entries = [LeaseEntry(names[i], token, lasts, bad) for i, bad in missed.items()]
            grants = yield from self._lease(channel_id, entries)
            granted = zip(missed, grants or (), strict=False)
            ours = {number: names[number] for number, grant in granted if grant.granted}
            value = yield from self._load(channel_id, ours, token, list(missed), kind)
            answers |= {number: kind.pick(value, number) for number in missed}
        return Answer(answers, hits, len(missed))

    def _load(
        self,
        channel_id: int,
        ours: Mapping[int, str],
        token: str,
        ids: Sequence[int],
        kind: _Kind[T],
    ) -> Generator[Request, Any, Any]:
        """Load `ids`, and fill those that we have the lease of, or give it back."""
        began = self.now()
        try:
            loaded: Loaded = yield Load(ids, bool(ours))
            cost = max(0.0, self.now() - began)
            entries = []
            for number, key in ours.items():
                seconds = kind.seconds(self.lives, loaded.value, number) * (1 - self.chance() / 10)
                life = Life(self.now() + seconds, cost)
                value = kind.encode(loaded.value, number, life) if loaded.quiet else None
                entries.append(FillEntry(key, token, loaded.as_of, value or b"", seconds))
            if entries:
                yield Fill(channel_id, entries)
        except GeneratorExit:
            raise
        except BaseException:  # Ctrl-C, too, must not leave a lease that others wait for
            if ours:
                yield Fill(channel_id, [FillEntry(key, token) for key in ours.values()])
            raise
        return loaded.value

    def _lease(
        self, channel_id: int, entries: Sequence[LeaseEntry], *, early: bool = False
    ) -> Generator[Request, Any, list[Grant] | None]:
        """Ask for leases, and leave none of which we did not hear."""
        try:
            grants: list[Grant] | None = yield Lease(entries, early=early)
        except GeneratorExit:
            raise
        except BaseException:
            yield Fill(channel_id, [FillEntry(each.key, each.token) for each in entries])
            raise
        return grants

    def _is_early(self, life: Life) -> bool:
        """Whether this reader should load a value again although it has not expired.

        "Optimal Probabilistic Cache Stampede Prevention" (Vattani, Chierichetti, Lowenstein, VLDB
        2015): the nearer the expiry and the dearer the load, the likelier.
        """
        gap = life.cost * self.lives.early * -log(1.0 - self.chance())
        return self.now() + gap >= life.until

    def _may_be_early(self, life: Life) -> bool:
        """Whether chance could say so: never is -log(1.0 - chance) above 37."""
        return self.now() + life.cost * self.lives.early * 37 >= life.until


def _decode_message(
    data: bytes, channel_id: int, number: int
) -> tuple[Message | None, Life] | None:
    cached = values.decode_message(data, channel_id, number)
    return (cached.message, cached) if cached else None


def _encode_message(loaded: dict[int, Message], number: int, life: Life) -> bytes | None:
    message = loaded.get(number)
    if message is None:
        return values.encode_absence(life)
    return values.encode_message(message, life)


def _decode_page(data: bytes, channel_id: int, number: int) -> tuple[Window, Life] | None:
    try:
        run = Run.of_page(data, channel_id, number)
        return run.newest(), run.life
    except Undecodable:
        return None


def _window(limit: int | None) -> _Kind[Window]:
    return _Kind(
        decode=lambda data, channel_id, _: values.decode_window(data, channel_id, limit),
        encode=lambda loaded, _, life: values.encode_window(loaded, life),
        pick=lambda loaded, _: loaded,
        seconds=lambda lives, *_: lives.window,
        enough=lambda window: limit is None or window.complete or len(window.messages) >= limit,
    )


_MESSAGE: _Kind[Message | None] = _Kind(
    decode=_decode_message,
    encode=_encode_message,
    pick=lambda loaded, number: loaded.get(number),
    seconds=lambda lives, loaded, number: lives.message if number in loaded else lives.absent,
)
_PAGE: _Kind[Window | None] = _Kind(
    decode=_decode_page,
    encode=lambda loaded, number, life: values.encode_window(loaded[number], life),
    pick=lambda loaded, number: loaded and loaded[number],
    seconds=lambda lives, *_: lives.window,
)
