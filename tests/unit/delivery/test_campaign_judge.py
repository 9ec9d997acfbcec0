"""The fault campaign's judge catches each kind of violation when one is planted, and no other.

Each plant below is what a broken library would leave behind. With the line of `judge` that names
a kind taken out, the tests of that kind fail; that was done for each of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs
import pytest
from campaign.history import Committed, History, Kind, Seen, judge
from campaign.plan import Fault, plan


def honest(seed: int = 1, channels: int = 3, length: int = 20) -> History:
    """A history without fault: channels interleaved, with repetitions of what came before."""
    rng = random.Random(seed)
    committed = [
        Committed(channel, position, f"{channel}/{position}")
        for channel in range(1, channels + 1)
        for position in range(1, length + 1)
    ]
    waiting = {channel: list(range(1, length + 1)) for channel in range(1, channels + 1)}
    handled: list[Seen] = []
    published: list[Seen] = []
    while waiting:
        channel = rng.choice(list(waiting))
        position = waiting[channel].pop(0)
        if not waiting[channel]:
            del waiting[channel]
        event = Seen(channel, f"{channel}/{position}", position * 10 + channel)
        handled.append(event)
        published.append(event)
        if rng.random() < 0.3:  # a relay was killed: a run of events comes once more
            published += published[-rng.randint(1, 5) :]
    return History(committed, published, handled)


def kinds(history: History) -> set[Kind]:
    return {violation.kind for violation in judge(history)}


@pytest.mark.parametrize("seed", range(20))
def test_an_honest_history_with_repetitions_has_no_violation(seed: int):
    assert judge(honest(seed)) == []


def without(sequence: tuple[Seen, ...], token: str) -> list[Seen]:
    return [each for each in sequence if each.token != token]


def swapped(sequence: list[Seen], one: str, two: str) -> list[Seen]:
    """As if `one` and `two` had taken each other's place, wherever they are."""
    first = next(each for each in sequence if each.token == one)
    second = next(each for each in sequence if each.token == two)
    other = {one: second, two: first}
    return [other.get(each.token, each) for each in sequence]


PHANTOM = Seen(2, "2/rolled-back", 9_999)

PLANTS: dict[str, tuple[Callable[[History], History], set[Kind]]] = {
    "an event that was never published": (
        lambda h: attrs.evolve(h, published=without(h.published, "2/7")),
        {Kind.UNPUBLISHED},
    ),
    "an event that was never handled": (
        lambda h: attrs.evolve(h, handled=without(h.handled, "2/7")),
        {Kind.UNHANDLED},
    ),
    "the last event of a channel is lost on both ways": (
        lambda h: attrs.evolve(
            h, published=without(h.published, "3/20"), handled=without(h.handled, "3/20")
        ),
        {Kind.UNPUBLISHED, Kind.UNHANDLED},
    ),
    "an event of a transaction that was rolled back": (
        lambda h: attrs.evolve(h, published=[*h.published, PHANTOM]),
        {Kind.PHANTOM},
    ),
    "an effect of an event that nobody committed": (
        lambda h: attrs.evolve(h, handled=[PHANTOM, *h.handled]),
        {Kind.PHANTOM},
    ),
    "an event under the wrong channel": (
        lambda h: attrs.evolve(h, handled=[*h.handled, Seen(1, "2/7", 72)]),
        {Kind.PHANTOM},
    ),
    "two neighbours change places on the broker": (
        lambda h: attrs.evolve(h, published=swapped(h.published, "2/7", "2/8")),
        {Kind.INVERTED},
    ),
    "two neighbours change places at the handler": (
        lambda h: attrs.evolve(h, handled=swapped(h.handled, "2/7", "2/8")),
        {Kind.INVERTED},
    ),
    "a late commit is overtaken by the whole rest of its channel": (
        lambda h: attrs.evolve(
            h,
            published=[*without(h.published, "1/3"), Seen(1, "1/3", 31)],
        ),
        {Kind.INVERTED},
    ),
    "a handler's effect is applied again": (
        lambda h: attrs.evolve(h, handled=[*h.handled, h.handled[5]]),
        {Kind.TWICE},
    ),
    "an event gets a new number when it is repeated": (
        lambda h: attrs.evolve(h, published=[*h.published, Seen(1, "1/20", 5_000)]),
        {Kind.MISNUMBERED},
    ),
    "numbers that are drawn before the lock, in another order than the commits": (
        lambda h: attrs.evolve(
            h,
            published=[
                attrs.evolve(each, sequence={"2/7": 82, "2/8": 72}.get(each.token, each.sequence))
                for each in h.published
            ],
        ),
        {Kind.MISNUMBERED},
    ),
}


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("seed", range(5))
def test_a_planted_violation_is_found_and_named(plant: str, seed: int):
    change, expected = PLANTS[plant]
    assert kinds(change(honest(seed))) == expected


def test_a_violation_names_its_event():
    change, _ = PLANTS["two neighbours change places at the handler"]
    (violation,) = judge(change(honest()))
    assert (violation.channel, violation.token) == (2, "2/7")
    assert violation.detail == "handled: position 7 after 8"


def test_every_kind_is_planted():
    assert set().union(*(expected for _, expected in PLANTS.values())) == set(Kind)


@pytest.mark.parametrize("count", [110, 2000])
def test_a_plan_is_repeatable_and_holds_every_fault(count: int):
    steps = list(plan(5, count))
    assert steps == list(plan(5, count))
    assert steps != list(plan(6, count))
    assert {step.fault for step in steps} == set(Fault)
    assert len(steps) >= count
