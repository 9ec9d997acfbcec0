"""When a consumer doubts a broker that hands out nothing."""

from __future__ import annotations

from telegram_hybrid.delivery.silence import SECONDS, Silence

LONG = SECONDS


def asked(silence: Silence, now: float, *, arrivals: int = 0, in_hand: int = 0) -> bool:
    return silence.due(arrivals, in_hand, now)


def test_a_queue_that_twice_holds_events_and_hands_out_none_is_stuck() -> None:
    silence = Silence(0, 0.0)
    assert not asked(silence, LONG - 0.1)
    assert asked(silence, LONG)
    assert not silence.stuck(42, 1, LONG)
    assert not asked(silence, 2 * LONG - 0.1)
    assert asked(silence, 2 * LONG)
    assert silence.stuck(42, 1, 2 * LONG)


def test_an_empty_queue_may_be_silent_for_ever() -> None:
    silence = Silence(0, 0.0)
    for turn in range(1, 10):
        assert asked(silence, turn * LONG)
        assert not silence.stuck(0, 1, turn * LONG)


def test_an_event_that_comes_clears_the_suspicion() -> None:
    # Broken on purpose: without `_suspected = False` in `due`, the event did not help.
    silence = Silence(0, 0.0)
    assert asked(silence, LONG)
    assert not silence.stuck(1, 1, LONG)
    assert not asked(silence, LONG + 1, arrivals=1)
    assert asked(silence, 2 * LONG + 1, arrivals=1)
    assert not silence.stuck(1, 1, 2 * LONG + 1)


def test_while_events_are_in_hand_nothing_has_to_come() -> None:
    # Broken on purpose: counting arrivals alone doubted a broker whose events were being handled.
    silence = Silence(0, 0.0)
    assert not asked(silence, LONG, arrivals=1, in_hand=1)
    assert not asked(silence, 3 * LONG, arrivals=1, in_hand=1)
    assert not asked(silence, 4 * LONG - 0.1, arrivals=1)
    assert asked(silence, 4 * LONG, arrivals=1)


def test_the_reserve_of_a_single_active_consumer_is_not_stuck_until_it_was_served() -> None:
    # Broken on purpose: without the look at `consumers`, every reserve came and went.
    silence = Silence(7, 0.0)
    for turn in (1, 2, 3):
        assert silence.due(7, 0, turn * LONG)
        assert not silence.stuck(500, 2, turn * LONG)
    assert not silence.due(8, 0, 3 * LONG + 1)
    for turn in (4, 5):
        assert silence.due(8, 0, turn * LONG + 1)
        assert silence.stuck(500, 2, turn * LONG + 1) == (turn == 5)
