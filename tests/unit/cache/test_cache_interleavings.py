"""Promises P5 and P6 over every interleaving of the real protocol generators.

Three readers and two writers of one value; a writer may die before its commit and after it. Every
guard of the protocol is broken on purpose below, and found out by the scenario named with it.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from cachelab import mutants
from cachelab.history import CHANNEL, KEYS, Log
from cachelab.interleavings import Census, Explorer
from cachelab.processes import (
    MESSAGE,
    WINDOW,
    as_committed,
    as_invalidated,
    cautious_reader,
    delete,
    early_reader,
    early_window_reader,
    edit,
    failover,
    hasty_reader,
    losing,
    losses_of,
    message_is,
    naive_reader,
    naive_writer,
    reader,
    receive,
    receive_below,
    receive_late,
    relay,
    standby,
    window_is,
    window_reader,
    writing,
)
from cachelab.steps import Shared, Steps

from telegram_hybrid.cache import protocol
from telegram_hybrid.model import EventType

STORED: Log = ((1, 7, EventType.RECEIVED),)
#: A full window, and one that is complete with room for one more.
FULL: Log = tuple((n + 1, i, EventType.RECEIVED) for n, i in enumerate((5, 7, 9)))
SHORT: Log = FULL[:2]
BOTH = (True, False)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    # A reader that waited begins again, as one more reader does that is explored beside it.
    monkeypatch.setattr(protocol, "_PATIENCE", 1)


def scene(
    log: Log = STORED,
    readers: Sequence[Callable[[], Steps]] = (reader,) * 3,
    *others: Callable[[], Steps],
    writer: Callable[[], Steps] | None = None,
    judged: Callable[..., Callable[[Shared], bool]] = as_committed,
    converges: bool = True,
    standby: int | None = None,
    **options: Any,
) -> Explorer:
    """Readers of message 7 and two writers of it, after `log`."""
    return Explorer(
        [*readers, *(writer or writing(edit, dies=True),) * 2, *others],
        Shared(log, standby=standby),
        MESSAGE,
        is_safe=judged(message_is),
        has_converged=lambda shared: not converges or message_is(shared, shared.log),
        **options,
    )


def window_scene(
    log: Log = FULL,
    readers: Sequence[Callable[[], Steps]] = (window_reader,) * 2,
    *others: Callable[[], Steps],
    writer: Callable[[], Steps] | None = None,
    judged: Callable[..., Callable[[Shared], bool]] = as_committed,
    standby: int | None = None,
    **options: Any,
) -> Explorer:
    """Readers of the head window, and two writers that do anything to it, after `log`."""
    return Explorer(
        [*readers, *(writer or writing(*ACTS, dies=True),) * 2, *others],
        Shared(log, standby=standby),
        WINDOW,
        is_safe=judged(window_is),
        has_converged=lambda shared: window_is(shared, shared.log),
        **options,
    )


ACTS = (receive, receive_late, receive_below, edit, delete)
#: Writers whose marks and invalidations may not reach Redis.
unheard = partial(writing, marks=BOTH, tells=BOTH, dies=True)
lost_tombstone = losing(lambda redis: redis.delete(KEYS.tombstone(CHANNEL)))


def crash(readers: Sequence[Callable[[], Steps]] = (reader,) * 3, **options: Any) -> Explorer:
    return scene(STORED, readers, **options)


def losses(readers: Sequence[Callable[[], Steps]] = (reader,) * 3, **options: Any) -> Explorer:
    return scene(STORED, readers, losing(*losses_of(MESSAGE)), **options)


def lost_marks(readers: Sequence[Callable[[], Steps]] = (reader,) * 3, **options: Any) -> Explorer:
    options = {"writer": unheard(edit), "judged": as_invalidated} | options
    return scene(STORED, readers, relay(1, 2), **options)


def lost_marks_and_tombstone(**options: Any) -> Explorer:
    return scene(
        STORED,
        (reader,) * 2,
        relay(1, 2),
        lost_tombstone,
        writer=unheard(edit),
        judged=as_invalidated,
        **options,
    )


def failing_over(
    readers: Sequence[Callable[[], Steps]] = (reader,) * 2,
    *others: Callable[[], Steps],
    replays: bool = True,
    **options: Any,
) -> Explorer:
    return scene(
        STORED,
        readers,
        failover(replays=replays),
        *others,
        judged=as_invalidated,
        converges=bool(others),
        keeps_acknowledged=True,
        **options,
    )


def lagging(**options: Any) -> Explorer:
    """Loads are made from a standby, whose snapshot may be older than the lease."""
    return scene(
        STORED,
        (reader,) * 2,
        standby(2),
        judged=as_invalidated,
        converges=False,
        standby=len(STORED),
        **options,
    )


def window_crash(**options: Any) -> Explorer:
    return window_scene(**options)


def window_lost_marks(**options: Any) -> Explorer:
    return window_scene(
        FULL,
        (window_reader,) * 2,
        relay(3, 2),
        writer=unheard(receive, edit),
        judged=as_invalidated,
        **options,
    )


SCENES = {
    "writers die": crash,
    "nothing is stored at first": partial(scene, ()),
    "a relay repeats late": partial(scene, STORED, (reader,) * 3, relay(1, 2)),
    "Redis evicts, expires or flushes": losses,
    "early refresh": partial(crash, (reader, early_reader)),
    "marks and invalidations are lost": lost_marks,
    "they and the tombstone are lost": lost_marks_and_tombstone,
    "Redis fails over": failing_over,
    "Redis fails over, a relay repairs": partial(failing_over, (reader,), relay(1, 2)),
    "a standby answers": lagging,
    "window, writers die": window_crash,
    "window, complete": partial(window_scene, SHORT, writer=writing(receive, delete, dies=True)),
    "window, early refresh": partial(
        window_scene,
        FULL,
        (window_reader, early_window_reader),
        writer=writing(receive, edit, dies=True),
    ),
    "window, a relay repeats late": partial(
        window_scene,
        FULL,
        (window_reader,) * 2,
        relay(3, 2),
        writer=writing(receive, edit, dies=True),
    ),
    "window, marks and invalidations are lost": window_lost_marks,
    "window, Redis evicts, expires or flushes": partial(
        window_scene,
        FULL,
        (window_reader,) * 2,
        losing(*losses_of(WINDOW)),
        writer=writing(receive, delete, dies=True),
    ),
}
#: Up to minutes each.
LONG_SCENES = {
    "3 readers, early refresh": partial(crash, (reader, early_reader, early_reader)),
    "window, complete, all acts": partial(window_scene, SHORT),
    "window, early refresh, all acts": partial(
        window_scene, FULL, (window_reader, early_window_reader)
    ),
    "Redis loses two things": partial(
        scene, STORED, (reader,) * 3, losing(*losses_of(MESSAGE), times=2)
    ),
    "3 readers, Redis fails over": partial(failing_over, (reader,) * 3),
    "3 readers, Redis fails over, a relay repairs": partial(
        failing_over, (reader,) * 3, relay(1, 2)
    ),
    "3 readers of a window": partial(window_scene, FULL, (window_reader,) * 3),
    "window, Redis loses anything": partial(
        window_scene, FULL, (window_reader,) * 2, losing(*losses_of(WINDOW))
    ),
    "window, Redis fails over, a relay repairs": partial(
        window_scene,
        FULL,
        (window_reader,) * 2,
        failover(),
        relay(3, 2),
        writer=writing(receive, edit, dies=True),
        judged=as_invalidated,
        keeps_acknowledged=True,
    ),
}


def explored(explorer: Explorer) -> Census:
    began = time.perf_counter()
    census = explorer.explore()
    print(f"{census}; {time.perf_counter() - began:.1f} s")
    return census


@pytest.mark.parametrize("build", SCENES.values(), ids=SCENES)
def test_no_interleaving_serves_what_is_stale(build: Callable[[], Explorer]) -> None:
    census = explored(build())
    assert census.trace == ()
    assert (census.unsafe, census.stale) == (0, 0)
    assert census.states > 5000
    assert census.terminal > 5


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("build", LONG_SCENES.values(), ids=LONG_SCENES)
def test_no_interleaving_of_very_many_serves_what_is_stale(build: Callable[[], Explorer]) -> None:
    census = explored(build())
    assert census.trace == ()
    assert (census.unsafe, census.stale) == (0, 0)


def test_readers_with_all_their_patience_see_nothing_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "_PATIENCE", 4)
    census = explored(crash((reader,) * 2))
    assert (census.unsafe, census.stale) == (0, 0)


two = (reader,) * 2
BROKEN = {
    "MARK leaves leases": partial(crash, two, redis=mutants.MarkLeavesLeases),
    "MARK leaves values": partial(crash, two, redis=mutants.MarkLeavesValues),
    "no marks": partial(crash, two, writer=writing(edit, marks=(False,), dies=True)),
    "INVALIDATE leaves leases": partial(
        lost_marks_and_tombstone, redis=mutants.InvalidateLeavesLeases
    ),
    "INVALIDATE leaves values": partial(lost_marks, two, redis=mutants.InvalidateLeavesValues),
    "FILL takes any lease": partial(crash, two, redis=mutants.FillTakesAnyLease),
    "FILL needs no lease": partial(crash, two, redis=mutants.FillNeedsNoLease),
    "FILL ignores the tombstone": partial(lagging, redis=mutants.FillIgnoresTheTombstone),
    "INVALIDATE leaves no tombstone": partial(lagging, redis=mutants.InvalidateLeavesNoTombstone),
    "load before lease": partial(crash, (hasty_reader,) * 2),
    "no look at the lock": partial(crash, two, looks_away=True),
    "no replay after failover": partial(failing_over, replays=False),
    "window: MARK leaves it": partial(window_crash, redis=mutants.MarkLeavesTheWindow),
    "window: MARK leaves leases": partial(window_crash, redis=mutants.MarkLeavesLeases),
    "window: MARK puts any aside": partial(window_crash, redis=mutants.MarkPutsAsideAnyWindow),
    "window: a patch fits any": partial(window_lost_marks, redis=mutants.PatchFitsAnyWindow),
    "window: no look at the lock": partial(window_crash, looks_away=True),
}


@pytest.mark.parametrize("build", BROKEN.values(), ids=BROKEN)
def test_each_guard_is_missed_by_some_interleaving(build: Callable[[], Explorer]) -> None:
    # A checker that cannot fail is worth nothing; nor is a guard that nothing needs.
    census = build().explore(stop_at_first=True)
    print(census, *census.trace, sep="\n  ")
    assert census.unsafe + census.stale == 1


@pytest.mark.parametrize("naive", [naive_reader, cautious_reader])
def test_the_explorer_finds_the_classic_race_of_set_and_delete(
    naive: Callable[[], Steps],
) -> None:
    census = explored(scene(STORED, (naive,) * 2, writer=naive_writer, judged=as_invalidated))
    assert census.stale > 0


def test_what_is_explored_fills_and_hits() -> None:
    explorer = scene(STORED, (reader,), writer=writing(edit, dies=False))
    explored(explorer)
    served = {shared.get(MESSAGE) is not None for shared in explorer.reached()}
    assert served == {True, False}
    windows = window_scene(FULL, (window_reader,), writer=writing(receive, dies=False))
    explored(windows)
    assert any(
        shared.get(WINDOW) is not None and len(shared.log) == len(FULL) + 2
        for shared in windows.reached()
    )
