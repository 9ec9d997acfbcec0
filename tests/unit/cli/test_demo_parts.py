"""The demo's own decisions: what is held back, remembered, compared, and how times are told."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telegram_hybrid import Change, Event, EventType, Message
from telegram_hybrid.cache.writes import group
from telegram_hybrid.cli.demo.input import CHANNELS, PAGE, SAMPLE, Witness, hold_back
from telegram_hybrid.cli.demo.latency import Latencies, Percentiles, timed
from telegram_hybrid.cli.demo.reads import Mismatch, compare_read
from telegram_hybrid.cli.demo.stamps import Stamps
from telegram_hybrid.testing import make_message


@pytest.mark.parametrize(
    ("total", "held"), [(0, 0), (1, 1), (57, 5), (1999, 199), (2000, 200), (2001, 200), (5000, 200)]
)
def test_the_last_two_hundred_or_a_tenth_are_held_back_in_order(total: int, held: int) -> None:
    messages = [make_message(message_id=number) for number in range(total)]
    last: list[Message] = []
    given_out = list(hold_back(iter(messages), last))
    assert len(last) == held
    assert given_out + last == messages


def test_percentiles_are_nearest_rank_in_milliseconds() -> None:
    assert Percentiles.of([]) is None
    assert Percentiles.of([0.002]) == Percentiles(2.0, 2.0, 2.0)
    hundred = [number / 1000 for number in range(100, 0, -1)]
    assert Percentiles.of(hundred) == Percentiles(50.0, 95.0, 99.0)


@given(st.lists(st.floats(min_value=0, max_value=10), min_size=1))
def test_percentiles_are_samples_and_ascend(samples: list[float]) -> None:
    found = Percentiles.of(samples)
    assert found is not None
    told = {round(sample * 1000, 3) for sample in samples}
    assert {found.p50, found.p95, found.p99} <= told
    assert found.p50 <= found.p95 <= found.p99 <= max(told)


def test_what_raises_is_not_timed() -> None:
    latencies = Latencies()
    with pytest.raises(ZeroDivisionError), timed(latencies.save):
        _ = 1 / 0
    with timed(latencies.save):
        pass
    assert latencies.counts()["save"] == 1


def test_a_witness_remembers_a_sample_and_the_newest_in_bounded_memory() -> None:
    witness = Witness()
    sent = [
        make_message(channel_id=-1_001_000_000_000 - channel, message_id=number)
        for number in range(300)
        for channel in range(CHANNELS + 6)
    ]
    for message in sent:
        witness.saw(message)
    assert len(witness.sample()) == len({m.key for m in witness.sample()}) == SAMPLE
    newest = witness.newest()
    assert len(newest) == CHANNELS
    for page in newest.values():
        assert [message.message_id for message in page] == list(range(299, 299 - PAGE, -1))
    assert witness.remembered <= SAMPLE + CHANNELS * PAGE


def test_of_two_contents_of_one_message_a_witness_expects_the_newer() -> None:
    first = make_message(message_id=1, text="first")
    edited = attrs.evolve(
        first, text="second", edited_at=first.sent_at.replace(year=first.sent_at.year + 1)
    )
    for order in ([first, edited], [edited, first]):
        witness = Witness()
        for message in order:
            witness.saw(message)
        assert witness.sample() == [edited]
        assert witness.newest() == {first.channel_id: [edited]}


def test_a_witness_knows_that_an_edit_may_go_back() -> None:
    # Broken on purpose: without `_said` the witness expected what lay between the two.
    first = make_message(message_id=1, text="first")
    year = first.sent_at.year
    between = attrs.evolve(first, text="other", edited_at=first.sent_at.replace(year=year + 1))
    back = attrs.evolve(first, edited_at=first.sent_at.replace(year=year + 2))
    witness = Witness()
    for message in (first, back, between):
        witness.saw(message)
    assert witness.sample() == [first]


def test_a_read_that_differs_from_what_was_sent_is_an_error() -> None:
    # Broken on purpose: without the comparison, the demo reports figures for wrong answers.
    sent = make_message(message_id=1, text="sent")
    compare_read(sent, sent, strict=True)
    for found in (None, attrs.evolve(sent, text="other"), attrs.evolve(sent, sender_name="x")):
        with pytest.raises(Mismatch, match="message 1 of channel"):
            compare_read(found, sent, strict=True)


def test_a_store_that_knew_a_newer_content_is_no_error() -> None:
    sent = make_message(message_id=1, text="sent")
    newer = attrs.evolve(
        sent, text="newer", edited_at=sent.sent_at.replace(year=sent.sent_at.year + 1)
    )
    compare_read(newer, sent, strict=False)
    with pytest.raises(Mismatch):
        compare_read(newer, sent, strict=True)
    with pytest.raises(Mismatch):
        compare_read(sent, newer, strict=False)


def event_of(message: Message) -> Event:
    return Event(EventType.RECEIVED, message)


def test_commit_to_handler_pairs_the_stamps_of_one_version_in_any_order() -> None:
    stamps = Stamps()
    message = attrs.evolve(make_message(message_id=1), version=7)
    other = attrs.evolve(make_message(message_id=2), version=8)
    stamps.entered(event_of(other))  # before it is on: not counted
    stamps.on = True
    stamps.entered(event_of(message))
    stamps.committed(group([Change(message.key, 7, EventType.RECEIVED)]))
    stamps.committed(group([Change(other.key, 8, EventType.RECEIVED)]))
    assert len(stamps.samples()) == 1
    stamps.entered(event_of(other))
    (first, second) = stamps.samples()
    assert first <= second
    assert second >= 0
