"""Wakes are few, and the last one is never swallowed."""

import time
from itertools import pairwise

from telegram_hybrid.cache.wake import INTERVAL, PAUSE, Wake


class Publisher:
    def __init__(self, *, works: bool = True) -> None:
        self.works = works
        self.times: list[float] = []

    def __call__(self) -> bool:
        self.times.append(time.monotonic())
        return self.works


def settle() -> None:
    time.sleep(INTERVAL * 4)


def test_a_burst_wakes_at_once_and_again_at_its_end() -> None:
    publisher = Publisher()
    wake = Wake(publisher)
    for _ in range(50):
        last_asked = time.monotonic()
        wake()
    settle()
    assert 2 <= len(publisher.times) < 50
    assert publisher.times[-1] >= last_asked
    assert all(late - early >= INTERVAL * 0.9 for early, late in pairwise(publisher.times))


def test_wakes_far_apart_are_all_sent_at_once() -> None:
    publisher = Publisher()
    wake = Wake(publisher)
    for expected in (1, 2, 3):
        wake()
        assert len(publisher.times) == expected
        settle()
    assert len(publisher.times) == 3


def test_after_a_failure_it_pauses() -> None:
    now = [100.0]
    publisher = Publisher(works=False)
    wake = Wake(publisher, clock=lambda: now[0])
    wake()
    now[0] += PAUSE / 2
    wake()
    settle()
    assert len(publisher.times) == 1
    now[0] += PAUSE
    wake()
    assert len(publisher.times) == 2


def test_closing_drops_the_wake_that_is_planned_and_may_be_repeated() -> None:
    publisher = Publisher()
    wake = Wake(publisher)
    wake()
    wake()
    wake.close()
    wake.close()
    settle()
    assert len(publisher.times) == 1
