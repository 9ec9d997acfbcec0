"""The consumer's schedule: order per channel, whatever fails, and other channels go on."""

from hypothesis import given
from hypothesis import strategies as st

from telegram_hybrid.delivery.backoff import Backoff
from telegram_hybrid.delivery.schedule import GiveUp, Job, Schedule, TryAgain

STEADY = Backoff(first=1.0, most=8.0, jitter=0.0)


def job(name: str, *, alone: bool = False) -> Job[None]:
    """A job whose channel is the first letter of its name."""
    return Job(name[0], name, None, alone)


def schedule(*names: str, max_attempts: int = 3) -> Schedule[None]:
    filled: Schedule[None] = Schedule(max_attempts=max_attempts, backoff=STEADY)
    for name in names:
        filled.arrived(job(name), 0.0)
    return filled


def take(of: Schedule[None], now: float, limit: int = 1) -> list[str]:
    return [taken.identity for taken in of.take(now, limit)]


def test_nothing_more_of_a_channel_comes_while_one_of_its_events_is_in_hand():
    # Broken on purpose: without the pop in `take`, the same event came out twice.
    held = schedule("a1", "a2", "b1")
    assert take(held, 0.0) == ["a1"]
    assert take(held, 0.0) == ["b1"]
    assert take(held, 0.0) == []
    held.done([job("a1")], 0.0)
    assert take(held, 0.0) == ["a2"]


def test_while_an_event_waits_for_its_next_attempt_later_ones_of_its_channel_wait_behind_it():
    # Broken on purpose: enqueueing a failed job's key with `now` let the retry come at once.
    held = schedule("a1", "a2", "b1")
    (failing,) = held.take(0.0)
    assert held.failed(failing, 0.0, 0.0) == TryAgain(1, 1.0)
    (other,) = held.take(0.0)
    assert other.identity == "b1"
    held.done([other], 0.0)
    assert take(held, 0.9) == []
    assert held.due(0.4) == 0.6
    assert take(held, 1.0) == ["a1"]


def test_an_event_is_given_up_at_its_last_attempt_and_the_channel_goes_on():
    held = schedule("a1", "a2", max_attempts=2)
    (failing,) = held.take(0.0)
    assert held.failed(failing, 0.0, 0.0) == TryAgain(1, 1.0)
    (failing,) = held.take(1.0)
    assert held.failed(failing, 1.0, 0.0) == GiveUp(2)
    assert take(held, 1.0) == []
    held.done([failing], 1.0)
    assert take(held, 1.0) == ["a2"]


def test_several_come_together_in_order_and_one_that_failed_comes_alone():
    held = schedule("a1", "a2", "b1", "a3")
    taken = held.take(0.0, 3)
    assert [each.identity for each in taken] == ["a1", "a2", "a3"]
    held.apart(taken, 0.0)
    assert take(held, 0.0, 9) == ["b1"]
    assert take(held, 0.0, 9) == ["a1"]
    held.done([job("a1")], 0.0)
    assert take(held, 0.0, 9) == ["a2"]


def test_being_in_a_batch_that_failed_costs_no_attempt():
    held = schedule("a1", "a2", max_attempts=1)
    held.apart(held.take(0.0, 2), 0.0)
    (first,) = held.take(0.0, 2)
    held.done([first], 0.0)
    (second,) = held.take(0.0, 2)
    assert held.failed(second, 0.0, 0.0) == GiveUp(1)


def test_a_job_that_is_alone_is_never_in_a_batch():
    held = schedule("a1")
    held.arrived(job("a2", alone=True), 0.0)
    held.arrived(job("a3"), 0.0)
    for expected in ("a1", "a2", "a3"):
        taken = held.take(0.0, 9)
        assert [each.identity for each in taken] == [expected]
        held.done(taken, 0.0)


def test_a_lost_server_costs_no_attempt():
    held = schedule("a1", max_attempts=1)
    held.later(held.take(0.0), 0.0, 2.0)
    assert held.due(0.0) == 2.0
    (again,) = held.take(2.0)
    assert held.failed(again, 2.0, 0.0) == GiveUp(1)


def test_failures_stay_counted_over_a_reconnect():
    held = schedule("a1", "a2", max_attempts=2)
    (failing,) = held.take(0.0)
    held.failed(failing, 0.0, 0.0)
    held.forget()
    assert len(held) == 0
    assert held.due(0.0) is None
    held.arrived(job("a1"), 5.0)
    (failing,) = held.take(5.0)
    assert held.failed(failing, 5.0, 0.0) == GiveUp(2)


@given(
    st.lists(st.sampled_from("abc"), max_size=15),
    st.lists(st.sampled_from(["arrive", "done", "fail", "later"]), max_size=60),
    st.integers(1, 4),
)
def test_whatever_happens_each_channel_is_dealt_with_in_order_and_completely(
    channels, fates, limit
):
    names = [f"{channel}{number:03d}" for number, channel in enumerate(channels)]
    held = schedule(max_attempts=3)
    arriving, dealt, now = list(names), [], 0.0
    fates = [*fates, *["arrive"] * len(names)]
    while fates or len(held):
        fate = fates.pop(0) if fates else "done"
        if fate == "arrive":
            if arriving:
                held.arrived(job(arriving.pop(0)), now)
            continue
        taken = held.take(now, limit)
        if not taken:
            now += held.due(now) or 0.0
        elif fate == "later":
            held.later(taken, now, 1.0)
        elif fate == "fail" and len(taken) > 1:
            held.apart(taken, now)
        elif fate == "fail" and isinstance(held.failed(taken[0], now, 0.0), TryAgain):
            continue
        else:
            held.done(taken, now)
            dealt += [each.identity for each in taken]
    assert sorted(dealt) == sorted(names)
    for channel in "abc":
        mine = [name for name in dealt if name[0] == channel]
        assert mine == sorted(mine)
