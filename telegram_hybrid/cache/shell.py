"""MessageCache: the blocking shell that drives the protocol with a Redis and with loaders."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar
from weakref import WeakSet

import attrs
import msgspec
from redis import Redis, RedisError

from telegram_hybrid.cache.audit import Audit, Auditor, Contents, Truth
from telegram_hybrid.cache.driver import Driver, Loader
from telegram_hybrid.cache.last import NOTHING, Allowed, LastKnown
from telegram_hybrid.cache.protocol import Answer, Lifetimes, Protocol, Reading
from telegram_hybrid.cache.requests import Invalidate, Load, Loaded, Mark
from telegram_hybrid.cache.stats import CacheStats, Tally
from telegram_hybrid.cache.store import Store
from telegram_hybrid.cache.wake import Wake
from telegram_hybrid.cache.watch import Watch
from telegram_hybrid.cache.window import latest_from
from telegram_hybrid.cache.writes import group
from telegram_hybrid.model import Change, ChannelWrite, Message
from telegram_hybrid.schema.redis import values
from telegram_hybrid.schema.redis.keys import Keys
from telegram_hybrid.schema.redis.values import Window

T = TypeVar("T")

#: All there are, for a forked child: a read that another thread of its parent had begun never ends.
_caches: WeakSet[MessageCache] = WeakSet()


def _after_fork() -> None:
    for cache in list(_caches):
        cache._begin_in_child()


os.register_at_fork(after_in_child=_after_fork)


class MessageCache:
    """Cache-aside reads of messages, head windows and seen flags, and what writers tell it.

    `redis` is a client with `decode_responses` off (`connect.redis.open_redis` makes one); with
    None every read goes to its loader (promise P7). `window_size` is the most messages that a
    question to a window may ask for.

    A loader gets the `Load` and answers with `Loaded`. It must begin its snapshot when it is
    called and see committed rows only: never read through the cache inside an open transaction
    (P2). Errors of Redis never reach the caller; a loader's always do.

    Threads may share one. After restoring an older database, delete our keys: seen flags are
    believed without asking.
    """

    def __init__(
        self,
        redis: Redis | None,
        keys: Keys,
        lives: Lifetimes | None = None,
        *,
        window_size: int = 100,
    ) -> None:
        if window_size < 1:
            raise ValueError(f"window_size: expected at least 1, got {window_size}")
        self.keys = keys
        self.window_size = window_size
        #: Messages in a full window: some more, so that deletions do not cut it short at once.
        self.window_capacity = window_size + max(1, window_size // 4)
        #: What the auditor compares with.
        self.truth: Truth | None = None
        self._redis = redis
        self._watch: Watch | None = None
        lives = lives or Lifetimes()
        self._tally = Tally()
        self._protocol = Protocol(keys=keys, lives=lives, new_token=partial(secrets.token_hex, 8))
        self._last_known = LastKnown()
        self._store: Store | None = None
        if redis is not None:
            self._store = Store(redis, keys, lives, self.window_capacity, self._tally)
            self._driver = Driver(self._store)
            self._wake = Wake(self._store.publish_wake)
        _caches.add(self)

    def get(
        self, channel_id: int, message_id: int, load: Loader, allow: Allowed = NOTHING
    ) -> Message | None:
        """Return one message, deleted or not; None if it is not stored."""
        if self._store is None:
            found: dict[int, Message] = load(Load([message_id])).value
            return found.get(message_id)
        key = self.keys.message(channel_id, message_id)
        begin = partial(self._protocol.message, channel_id, message_id)
        if allow == NOTHING:
            return self._counted(self._driver.share(key, begin, load))

        def last(data: bytes) -> Message | None:
            found = values.decode_message(data, channel_id, message_id)
            if found is None or found.message is None:
                return None
            return attrs.evolve(found.message, stale=True)

        return self._counted(self._or_last(key, begin, load, allow, last))

    def get_many(
        self, channel_id: int, message_ids: Iterable[int], load: Loader
    ) -> dict[int, Message]:
        """Return {message_id: message} of those that are stored, deleted ones included."""
        if self._store is None:
            ids = list(dict.fromkeys(message_ids))
            return load(Load(ids)).value if ids else {}
        reading = self._protocol.messages(channel_id, message_ids)
        return self._counted(self._driver.run(reading, load))

    def after(
        self, channel_id: int, message_id: int, limit: int
    ) -> tuple[Sequence[Message], int] | None:
        """Return what follows a message, ascending, and the id up to which that is complete.

        `limit` messages at most, as far as they are cached. None if what the cache lacks is to be
        loaded: by `window`, and then by `pages`.
        """
        if self._store is None:
            return (), message_id
        flight = f"{self.keys.window(channel_id)}:{message_id}:{limit}"
        begin = partial(self._protocol.after, channel_id, message_id, limit)
        return self._counted(self._driver.share(flight, begin, _load_nothing))

    def window(
        self, channel_id: int, limit: int | None, load: Loader, allow: Allowed = NOTHING
    ) -> Window | None:
        """Return the head window of a channel, with its newest `limit` messages.

        With None, as it is, and with all messages that it has. A loader that is not `guarded` need
        not load more than those `limit`.
        """
        if self._store is None:
            window: Window | None = load(Load([])).value
            return window
        key = self.keys.window(channel_id)
        begin = partial(self._protocol.window, channel_id, limit)
        flight = f"{key}:{limit}"  # a thread that wants more would not get it with a lesser one
        if allow == NOTHING:
            return self._counted(self._driver.share(flight, begin, load))

        def last(data: bytes) -> Window | None:
            found = values.decode_window(data, channel_id, limit)
            if found is None or latest_from(found[0], limit or 0) is None:
                return None
            messages = (attrs.evolve(message, stale=True) for message in found[0].messages)
            return attrs.evolve(found[0], messages=tuple(messages))

        return self._counted(self._or_last(key, begin, load, allow, last, flight))

    def pages(
        self, channel_id: int, numbers: Iterable[int], load: Loader
    ) -> dict[int, Window | None]:
        """Return pages of a channel by number; None for what is neither cached nor ours to cache.

        A loader that is `guarded` loads them all: {number: Window.page(...)}.
        """
        wanted = list(numbers)
        if self._store is None:
            return dict.fromkeys(wanted)
        return self._counted(self._driver.run(self._protocol.pages(channel_id, wanted), load))

    def seen(self, channel_id: int, message_ids: Iterable[int], load: Loader) -> set[int]:
        """Return those ids of a channel that are stored, deleted ones included."""
        if self._store is None:
            ids = list(dict.fromkeys(message_ids))
            return load(Load(ids)).value if ids else set()
        reading = self._protocol.seen(channel_id, message_ids)
        return self._counted(self._driver.run(reading, load))

    def result(self, name: str, parameters: Any, channel_ids: Iterable[int], load: Loader) -> Any:
        """Return the result of a query over channels, as JSON gives it back.

        `name` and `parameters` (anything JSON can say) tell queries apart. The result is kept for
        half a minute, and for no longer than until one of the channels is written to. A loader
        that is `guarded` says whether all of them were `quiet`.
        """
        channels = sorted(set(channel_ids))
        if self._store is None:
            return msgspec.json.decode(values.encode_query(load(Load([])).value))
        said = msgspec.json.encode([channels, parameters], order="deterministic")
        digest = sha256(said).hexdigest()[:32]
        key = self.keys.api(name, digest)
        begin = partial(self._protocol.result, name, digest, channels)
        # Threads share the text: what one of them does to its result is not seen by others.
        return msgspec.json.decode(self._counted(self._driver.share(key, begin, load)))

    def mark(self, writes: Sequence[ChannelWrite]) -> bool:
        """Serve nothing any more that a transaction changed, just before it commits.

        To be called while it holds its channels' locks. Returns False if Redis failed it: then
        hits may be older than the commit until it is invalidated.
        """
        return not writes or self._store is None or self._store.ask(Mark(writes)) is True

    def invalidate(self, writes: Sequence[ChannelWrite]) -> bool:
        """Make the cache forget what a commit made stale; one round trip for all.

        Returns False if Redis failed it, wholly or in part. That is never raised, because the
        commit has happened: it is repeated, and until then this process reads the database.
        """
        return not writes or self._store is None or self._store.ask(Invalidate(writes)) is True

    def committed(self, writes: Sequence[ChannelWrite]) -> bool:
        """Invalidate what a commit made stale, if anything, and have relays woken behind it.

        In this order: a relay that comes first drops the window that we would patch, and somebody
        has to load it again. Returns whether all was invalidated; never raises.
        """
        if self._store is None:
            return True
        # With the invalidations, if no call has just been made: a thread is slower to make it.
        claimed = bool(writes) and self._wake.claim()
        done = self._store.ask(Invalidate(writes, wake=claimed)) if writes else True
        if not claimed or done is None:
            self._wake()
        return done is True

    def forget_seen(self, channel_id: int, message_ids: Iterable[int]) -> bool:
        """Take back that messages are stored: they were removed, which saving never does.

        A reader that asks the database at the same moment may say so again. Returns False if
        Redis failed it; nobody repeats it.
        """
        flags = list(self.keys.flags(channel_id, message_ids).values())
        if self._redis is None or not flags:
            return True
        try:
            self._redis.unlink(*flags)
        except (RedisError, OSError):
            return False
        return True

    def repair(self, changes: Iterable[Change]) -> bool:
        """Invalidate what was committed, in the place of writers that may have died.

        Returns False if Redis failed it; it is repeated, as with `invalidate`.
        """
        writes = group(changes)
        if not writes or self._store is None:
            return True
        return self._store.ask(Invalidate(writes, repair=True)) is True

    def recall(self, changed: Callable[[float], tuple[Mapping[int, int], Set[int]]]) -> None:
        """Repair what nobody is left to repair: to be called by who takes over some channels.

        `changed` gets a number of seconds and returns the channels written to in them, as
        {channel_id: version}, and those of them of which a relay knew that Redis was not told
        all. Of these, and of channels of which Redis knows an older version or none, because the
        writer and whoever should have repaired it died, every value goes.
        """
        if self._store is not None:
            # Longer than a tombstone lives, so that a transaction may have been open for a while.
            self._store.recall(*changed(2 * self._protocol.lives.tombstone))

    def stats(self) -> CacheStats:
        """Return the counts of this process so far, and how it stands with Redis."""
        if self._store is None:
            return self._tally.read()
        gate = self._store.gate
        found = self._tally.read(breaker=gate.state.value, trusted=gate.trusted)
        return attrs.evolve(found, waits=found.waits + self._driver.flights.waits)

    def audit(
        self, sample: int = 1000, *, told: Callable[[int, int], object] = lambda *_: None
    ) -> Audit:
        """Compare a random sample of `sample` cached values with the database.

        A commit meanwhile is no false alarm: what differs is looked at again after 2 seconds.
        `told(done, total)` is called as it goes. Raises `RedisUnavailable` and `DatabaseError`.
        """
        if self._redis is None or self.truth is None:
            return Audit()
        return Auditor(self._redis, self.keys).audit(self.truth, sample, told)

    def contents(self) -> Contents:
        """Count what is cached, by going through all keys. Raises `RedisUnavailable`."""
        if self._redis is None:
            return Contents({}, 0, 0, "", 0)
        return Auditor(self._redis, self.keys).contents()

    def watch(self, seconds: float) -> None:
        """Audit 100 values every `seconds` in the background, and log what is inconsistent."""
        if self._redis is not None and self._watch is None:
            self._watch = Watch(self.audit, seconds)
            self._watch.start()

    def master_changed(self, lost: float = 0.0) -> None:
        """Another server answers as our Redis: repeat to it what the last one may not have told it.

        If it lacks what that one was told in more `lost` seconds than anybody remembers, every
        value of ours goes. Until that is done, and for `ledger.GRACE` seconds more, reads go to the
        database. Returns at once, from any thread.
        """
        if self._store is not None:
            self._store.gate.moved(lost)

    def server_restarted(self) -> None:
        """Our Redis was restarted, perhaps with an old file: delete every value of ours in it.

        Otherwise as `master_changed`.
        """
        if self._store is not None:
            self._store.gate.restarted()

    def close(self) -> None:
        """End our threads. The client stays open; its maker closes it."""
        if self._watch is not None:
            self._watch.stop()
        self._last_known.close()
        if self._store is not None:
            self._wake.close()
            self._store.close()

    def _or_last(
        self,
        key: str,
        begin: Callable[[], Reading[T]],
        load: Loader,
        allow: Allowed,
        decode: Callable[[bytes], T | None],
        flight: str | None = None,
    ) -> Answer[T]:
        """Read one value, or what was last known of it."""

        def last() -> Answer[T] | None:
            data = self._store.last(key) if self._store is not None else None
            found = decode(data) if data is not None else None
            return Answer(found, 0, 0, stale=1) if found is not None else None

        return self._last_known.read(
            key,
            lambda: self._driver.share(flight or key, begin, load),
            last,
            hit=(lambda: self._driver.hit(begin())) if allow.while_revalidate else None,
            if_error=allow.if_error,
        )

    def _begin_in_child(self) -> None:
        self._tally.begin()
        self._last_known.begin()
        if self._store is not None:
            self._store.begin()
            self._driver.flights.begin()

    def _counted(self, answer: Answer[T]) -> T:
        self._tally.answered(answer.hits, answer.misses)
        if answer.early or answer.stale:
            self._tally.add(early=answer.early, stale=answer.stale)
        return answer.value


def _load_nothing(_: Load) -> Loaded:
    return Loaded(None)
