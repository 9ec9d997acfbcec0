"""Waves and confirms: order under refusal, and every answer to its own event."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telegram_hybrid.delivery.confirms import CONFIRMED, Confirms, Verdict, waves


@given(st.lists(st.integers(0, 4)))
def test_waves_hold_every_position_once_and_a_key_once_and_keep_each_keys_order(keys):
    # Broken on purpose: not counting `seen` up put two positions of a key into one wave.
    result = waves(keys)
    assert sorted(at for wave in result for at in wave) == list(range(len(keys)))
    for wave in result:
        assert len({keys[at] for at in wave}) == len(wave)
    for key in set(keys):
        order = [at for wave in result for at in wave if keys[at] == key]
        assert order == sorted(order)


def test_waves_are_as_many_as_the_commonest_key_has_positions():
    assert waves(["a", "b", "a", "a", "c"]) == [[0, 1, 4], [2], [3]]
    assert waves([]) == []


def test_one_ack_for_several_confirms_all_up_to_its_number():
    confirms = Confirms()
    for event in "abcd":
        confirms.sent(event)
    confirms.acked(3, True)
    assert confirms.waiting == 1
    confirms.nacked(4, False)
    receipts = confirms.collect()
    assert [receipts[event].verdict for event in "abcd"] == [Verdict.CONFIRMED] * 3 + [
        Verdict.NACKED
    ]


def test_a_returned_event_is_not_confirmed_by_the_ack_that_follows():
    # Broken on purpose: `acked` that ignored returns confirmed an event that no queue got.
    confirms = Confirms()
    confirms.sent("a")
    confirms.sent("b")
    confirms.returned("a", "NO_ROUTE")
    confirms.acked(2, True)
    receipts = confirms.collect()
    assert receipts["a"].verdict is Verdict.RETURNED
    assert receipts["a"].reason == "NO_ROUTE"
    assert receipts["b"] == CONFIRMED


def test_what_was_not_answered_is_unknown_and_forgotten_afterwards():
    confirms = Confirms()
    confirms.sent("a")
    assert confirms.collect("the line went dead")["a"].verdict is Verdict.UNKNOWN
    assert confirms.waiting == 0
    assert confirms.collect() == {}


def test_numbers_go_on_counting_after_a_collection():
    # The broker counts over the channel's life: the second wave's first event is number 2.
    confirms = Confirms()
    confirms.sent("a")
    confirms.acked(1, False)
    confirms.collect()
    confirms.sent("b")
    confirms.acked(1, False)
    assert confirms.waiting == 1
    confirms.acked(2, False)
    assert confirms.collect() == {"b": CONFIRMED}


@given(st.data())
def test_every_event_gets_exactly_its_own_answer_in_whatever_order_answers_come(data):
    count = data.draw(st.integers(1, 12))
    confirms = Confirms()
    for number in range(1, count + 1):
        confirms.sent(str(number))
    nacks = data.draw(st.sets(st.integers(1, count)))
    for number in data.draw(st.permutations(range(1, count + 1))):
        (confirms.nacked if number in nacks else confirms.acked)(number, False)
    receipts = confirms.collect()
    assert len(receipts) == count
    assert {int(event) for event in receipts if receipts[event].verdict is Verdict.NACKED} == nacks


@pytest.mark.parametrize("number", [0, 7])
def test_an_answer_to_nothing_is_ignored(number):
    confirms = Confirms()
    confirms.sent("a")
    confirms.acked(number, False)
    assert confirms.waiting == 1
