"""The breaker as tables of events. Each row: when, what happened, the state after it.

Broken on purpose and seen to fail: a good reply that forgets no failures; slow replies that count
each time; a pause that does not grow.
"""

import pytest

from telegram_hybrid.cache.breaker import CALM, PAUSE_MOST, Breaker

Row = tuple[float, str, str]

TABLES: dict[str, list[Row]] = {
    "four failures in a row open it": [
        (0.0, "error", "closed"),
        (0.0, "error", "closed"),
        (0.0, "error", "closed"),
        (0.0, "error", "open"),
    ],
    "a good reply forgets the failures before it": [
        (0.0, "error", "closed"),
        (0.0, "error", "closed"),
        (0.0, "error", "closed"),
        (0.0, "fast", "closed"),
        (0.0, "error", "closed"),
        (0.0, "error", "closed"),
        (0.0, "error", "closed"),
        (0.0, "error", "open"),
    ],
    "two timeouts open it": [(0.0, "timeout", "closed"), (0.3, "timeout", "open")],
    "slow replies open it within a second, however many threads": [
        *[(0.0, "slow", "closed")] * 50,
        *[(0.25, "slow", "closed")] * 50,
        *[(0.5, "slow", "closed")] * 50,
        (0.75, "slow", "open"),
    ],
    "a rush of slow replies that passes does not": [
        *[(0.0, "slow", "closed")] * 50,
        (0.3, "slow", "closed"),
        (0.5, "fast", "closed"),
        (0.8, "slow", "closed"),
    ],
    "a good probe closes it, and it takes as many failures again": [
        *[(0.0, "error", "closed")] * 3,
        (0.0, "error", "open"),
        (0.1, "probe", "half-open"),
        (0.1, "answered", "closed"),
        (0.2, "error", "closed"),
    ],
    "a mute or slow probe opens it again": [
        (0.0, "timeout", "closed"),
        (0.0, "timeout", "open"),
        (0.1, "probe", "half-open"),
        (0.3, "mute", "open"),
        (0.5, "probe", "half-open"),
        (0.6, "answered slowly", "open"),
    ],
    "replies that were under way when it opened change nothing": [
        (0.0, "timeout", "closed"),
        (0.0, "timeout", "open"),
        (0.0, "fast", "open"),
        (0.0, "error", "open"),
        (0.1, "probe", "half-open"),
        (0.1, "fast", "half-open"),
        (0.1, "timeout", "half-open"),
    ],
    "a probe that nobody asked for is none": [(0.0, "probe", "closed"), (0.0, "mute", "closed")],
}


def perform(breaker: Breaker, now: float, event: str) -> None:
    match event:
        case "fast":
            breaker.answered(now, 0.001)
        case "slow":
            breaker.answered(now, 0.06)
        case "error" | "timeout":
            breaker.failed(now, timeout=event == "timeout")
        case "probe":
            breaker.probe()
        case "answered":
            breaker.probed(now, 0.001)
        case "answered slowly":
            breaker.probed(now, 0.06)
        case "mute":
            breaker.probed(now, None)


@pytest.mark.parametrize("name", TABLES)
def test_events_lead_from_state_to_state(name: str) -> None:
    breaker = Breaker()
    for number, (now, event, after) in enumerate(TABLES[name]):
        perform(breaker, now, event)
        assert breaker.state == after, f"row {number}: {event} at {now}"


def pauses(breaker: Breaker, failed_probes: int, now: float = 0.0) -> list[float]:
    """How long it waits before each probe, from the first failure on."""
    perform(breaker, now, "timeout")
    perform(breaker, now, "timeout")
    found = [breaker.wait(now)]
    for _ in range(failed_probes):
        now += breaker.wait(now)
        perform(breaker, now, "probe")
        perform(breaker, now, "mute")
        found.append(breaker.wait(now))
    return found


def test_pauses_grow_up_to_a_second_and_are_jittered() -> None:
    longest = pauses(Breaker(lambda: 0.999999), 5)
    shortest = pauses(Breaker(lambda: 0.0), 5)
    assert longest == pytest.approx([0.1, 0.2, 0.4, 0.8, PAUSE_MOST, PAUSE_MOST], rel=1e-3)
    assert shortest == pytest.approx([pause / 2 for pause in longest], rel=1e-3)


@pytest.mark.parametrize(("after", "first"), [(1.0, 0.4), (CALM + 1.0, 0.1)])
def test_pauses_go_on_growing_unless_it_was_closed_for_long(after: float, first: float) -> None:
    breaker = Breaker(lambda: 0.999999)
    pauses(breaker, 1)
    perform(breaker, 5.0, "probe")
    perform(breaker, 5.0, "answered")
    assert pauses(breaker, 0, 5.0 + after) == pytest.approx([first], rel=1e-3)
