"""Promises P5 and P6 over every interleaving of the real protocol generators.

Broken on purpose, and what then went stale here:
(a) INVALIDATE that leaves the lease: windows; messages when the tombstone is evicted too.
(b) FILL that asks for any lease, not for its own token: windows; messages after eviction of the
    tombstone or a flush.
(c) `Load` before `Lease`: the same as (b).
(d) INVALIDATE that neither takes the lease nor leaves a tombstone: everything.
So either guard holds on a healthy Redis, and both are needed on one that loses keys.
"""

from collections.abc import Callable

import pytest
from cachelab.interleavings import (
    CHANNEL,
    KEYS,
    Commit,
    Load,
    Plain,
    Steps,
    World,
    adversary,
    evict,
    expire_leases,
    explore,
    flush,
    message,
    reader,
    window_reader,
    writer,
)
from cachelab.redis_model import RedisModel

from telegram_hybrid.model import EventType
from telegram_hybrid.schema.redis import values

KEY = KEYS.message(CHANNEL, 7)
WINDOW = KEYS.window(CHANNEL)


def message_is_stale(world: World) -> bool:
    return world.cached_version(7) not in (None, world.rows.get(7))


def window_is_stale(world: World) -> bool:
    window = world.cached_window()
    return window is not None and {m.message_id: m.version for m in window.messages} != world.rows


def never_older_than_an_applied_invalidation(world: World) -> None:
    cached = world.cached_version(7)
    assert cached is None or cached >= world.applied.get(KEY, 0)
    for name, answer in world.answers.items():
        if name.startswith("reader"):
            version = answer.value[7].version if answer.value else 0
            assert version >= world.began[name].get(KEY, 0)


def with_row(**processes: Steps) -> World:
    world = World(**processes)
    world.rows[7] = 1
    return world


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(
            lambda: with_row(reader1=reader("a"), reader2=reader("b"), writer=writer()),
            id="2 readers, 1 writer",
        ),
        pytest.param(
            lambda: World(
                reader1=reader("a"),
                reader2=reader("b"),
                writer=writer(1, kind=EventType.RECEIVED),
            ),
            id="2 readers, 1 first save",
        ),
        pytest.param(
            lambda: with_row(
                reader1=reader("a"), reader2=reader("b"), reader3=reader("c"), writer=writer()
            ),
            id="3 readers, 1 writer",
        ),
        pytest.param(
            lambda: with_row(
                reader1=reader("a"), reader2=reader("b"), writer1=writer(), writer2=writer()
            ),
            id="2 readers, 2 writers",
        ),
    ],
)
def test_no_interleaving_leaves_a_stale_message(build: Callable[[], World]) -> None:
    census = explore(build, message_is_stale, never_older_than_an_applied_invalidation)
    print(census)
    assert census.stale == 0
    assert census.terminal > 10


@pytest.mark.parametrize(
    "loss",
    [
        evict(KEY),
        evict(KEYS.lease(KEY)),
        evict(KEYS.tombstone(KEY)),
        flush,
        expire_leases,
    ],
    ids=["value", "lease", "tombstone", "flush", "lease expiry"],
)
def test_what_redis_loses_on_its_own_leaves_no_stale_message(
    loss: Callable[[RedisModel], object],
) -> None:
    census = explore(
        lambda: with_row(
            reader1=reader("a"), reader2=reader("b"), writer=writer(), adversary=adversary(loss)
        ),
        message_is_stale,
        never_older_than_an_applied_invalidation,
    )
    print(census)
    assert census.stale == 0
    assert census.terminal > 10


def test_windows_hold_every_commit_though_versions_become_visible_out_of_order() -> None:
    # Whatever writer commits last, one of the two orders is against the order of versions.
    census = explore(
        lambda: World(
            reader1=window_reader("a"),
            reader2=window_reader("b"),
            writer1=writer(1, message_id=5, kind=EventType.RECEIVED),
            writer2=writer(2, message_id=6, kind=EventType.RECEIVED),
        ),
        window_is_stale,
    )
    print(census)
    assert census.stale == 0
    assert census.terminal > 10


def naive_reader() -> Steps:
    found = yield Plain(lambda redis: redis.get(KEY))
    if found is None:
        loaded = yield Load([7])
        yield Plain(lambda redis: redis.put(KEY, values.encode_message(loaded[7]), 3600))


def naive_writer() -> Steps:
    yield Commit(7, 2)
    yield Plain(evict(KEY))


def cautious_reader() -> Steps:
    """Set only if what is there is not newer: does not help, because nothing is there."""
    found = yield Plain(lambda redis: redis.get(KEY))
    if found is None:
        loaded = yield Load([7])

        def set_if_newer(redis: RedisModel) -> None:
            stored = redis.get(KEY)
            held = stored and values.decode_message(stored, CHANNEL, 7)
            if not held or held.version < loaded[7].version:
                redis.put(KEY, values.encode_message(loaded[7]), 3600)

        yield Plain(set_if_newer)


@pytest.mark.parametrize("naive", [naive_reader, cautious_reader])
def test_the_explorer_finds_the_classic_race_of_set_and_delete(
    naive: Callable[[], Steps],
) -> None:
    census = explore(
        lambda: with_row(reader1=naive(), reader2=naive(), writer=naive_writer()),
        message_is_stale,
    )
    print(census)
    assert census.stale > 0


def test_the_model_that_is_explored_answers_like_the_database() -> None:
    world = with_row(reader1=reader("a"))
    while world.runnable():
        world.step("reader1")
    assert world.answers["reader1"].value == {7: message(7, 1)}
    assert world.cached_version(7) == 1
