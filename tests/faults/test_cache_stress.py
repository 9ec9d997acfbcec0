"""The cache under everything at once: no read is older than an invalidation before it (P5, P6).

Processes of readers and writers share a few hot messages of two channels. Writers are killed
between mark and commit and between commit and invalidation, relays are killed, Redis is flushed,
evicts (5 MB, allkeys-lru), is stopped and continued, and fails over to its replica.

What is known is kept in memory that all processes share: for each message the highest version
whose invalidation had returned True, and the highest whose transaction had returned after a mark
that Redis took. A reader notes both before it asks, and looks whether the answer is older.

CACHE_STRESS_READS is the number of reads (of keys) to go on for, 0 for as many as fit into
CACHE_STRESS_SECONDS (24). The long profile is 1,000,000. The run prints its counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from cachestress.cast import Plan, deaf, faithful, lenient, markless
from cachestress.play import Play, stage
from servers.redis_ha import RedisHA

from telegram_hybrid.delivery.relay import POLL_MOST
from telegram_hybrid.settings import Settings

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


@pytest.fixture
def on_stage(ha: RedisHA) -> Iterator[tuple[Settings, RedisHA]]:
    with stage(ha) as ready:
        yield ready


READS = int(os.environ.get("CACHE_STRESS_READS", "0"))
SECONDS = float(os.environ.get("CACHE_STRESS_SECONDS", "24"))


@pytest.mark.parametrize(("plan", "share"), [(faithful, 1.0), (markless, 0.5)])
def test_under_every_fault_no_read_is_older_than_an_invalidation_before_it(
    on_stage: tuple[Settings, RedisHA],
    plan: Plan,
    share: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nor older than the last commit whose mark Redis took, short of a failover.

    Without marks the staleness that a dead writer leaves is seen to end: the relay's poll + 1 s.
    """
    ends = time.monotonic() + SECONDS * share

    def goes_on(play: Play) -> bool:
        if len(play.repairs) < 3 or not play.chaos.failovers:
            return True
        return play.facts["keys"] < READS * share if READS else time.monotonic() < ends

    play = Play(on_stage, plan)
    play.run(goes_on)
    with capsys.disabled():
        print(f"\n{plan.__name__}: {play}")
    facts, chaos = play.facts, play.chaos
    assert (facts["older_than_invalidation"], facts["incomplete"]) == (0, 0), play.found
    assert (facts["older_than_commit"], facts["invented"]) == (0, 0), play.found
    assert max(play.repairs) < POLL_MOST + 1.0
    assert facts.unseen.value == 0
    happened = (chaos.failovers, chaos.flushes, chaos.stops, chaos.evicted, facts["kills"])
    assert all(happened), happened


@pytest.mark.parametrize("plan", [deaf, lenient])
def test_the_stress_finds_violations_that_were_planted(
    on_stage: tuple[Settings, RedisHA], plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = time.monotonic() + 60.0

    def found(play: Play) -> int:
        return play.facts["older_than_invalidation"] + play.facts["incomplete"]

    play = Play(on_stage, plan)
    play.run(lambda play: not found(play) and time.monotonic() < ends, harm=False)
    with capsys.disabled():
        print(f"\n{plan.__name__}: {play}")
    assert found(play) > 0, play.found
