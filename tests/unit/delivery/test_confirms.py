"""Confirms: every answer to its own event."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telegram_hybrid.delivery.confirms import Confirms, Verdict


def verdicts(confirms: Confirms) -> dict[str, Verdict]:
    return {receipt.message_id: receipt.verdict for receipt in confirms.collect()}


def test_one_ack_for_several_confirms_all_up_to_its_number():
    confirms = Confirms()
    for event in "abcd":
        confirms.sent(event)
    confirms.acked(3, True)
    assert confirms.waiting == 1
    confirms.nacked(4, False)
    assert list(verdicts(confirms).items()) == [
        ("a", Verdict.CONFIRMED),
        ("b", Verdict.CONFIRMED),
        ("c", Verdict.CONFIRMED),
        ("d", Verdict.NACKED),
    ]


def test_a_returned_event_is_not_confirmed_by_the_ack_that_follows():
    # Broken on purpose: `acked` that ignored returns confirmed an event that no queue got.
    confirms = Confirms()
    confirms.sent("a")
    confirms.sent("b")
    confirms.returned("a", "NO_ROUTE")
    confirms.acked(2, True)
    first, second = confirms.collect()
    assert (first.verdict, first.reason) == (Verdict.RETURNED, "NO_ROUTE")
    assert (second.verdict, second.reason) == (Verdict.CONFIRMED, "")


def test_the_oldest_is_the_first_without_an_answer_and_a_receipt_tells_how_long_it_took():
    confirms = Confirms()
    assert confirms.oldest is None
    confirms.sent("a", 10.0)
    confirms.sent("b", 11.0)
    confirms.acked(1, False)
    assert confirms.oldest == 11.0
    (receipt,) = confirms.collect(12.5)
    assert receipt.seconds == 2.5
    assert confirms.collect(13.0) == []


def test_numbers_go_on_counting_after_a_collection():
    # The broker counts over the channel's life: what is sent next is number 2.
    confirms = Confirms()
    confirms.sent("a")
    confirms.acked(1, False)
    confirms.collect()
    confirms.sent("b")
    confirms.acked(1, False)
    assert confirms.waiting == 1
    confirms.acked(2, False)
    assert verdicts(confirms) == {"b": Verdict.CONFIRMED}


@given(st.data())
def test_every_event_gets_exactly_its_own_answer_in_whatever_order_answers_come(data):
    count = data.draw(st.integers(1, 12))
    confirms = Confirms()
    for number in range(1, count + 1):
        confirms.sent(str(number))
    nacks = data.draw(st.sets(st.integers(1, count)))
    for number in data.draw(st.permutations(range(1, count + 1))):
        (confirms.nacked if number in nacks else confirms.acked)(number, False)
    answers = verdicts(confirms)
    assert len(answers) == count
    assert {int(event) for event in answers if answers[event] is Verdict.NACKED} == nacks


@pytest.mark.parametrize("number", [0, 7])
def test_an_answer_to_nothing_is_ignored(number):
    confirms = Confirms()
    confirms.sent("a")
    confirms.acked(number, False)
    assert confirms.waiting == 1
