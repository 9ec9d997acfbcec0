"""Which channel a text means, and how a channel's messages are cut into batches."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.legacy import batching
from telegram_hybrid.legacy.batching import batches
from telegram_hybrid.legacy.checking import Refused, messages
from telegram_hybrid.legacy.rows import LegacyRow, channel_of

CHANNEL = -1001649127710
NOW = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["-1001649127710", " -1001649127710\n"])
def test_a_marked_id_is_itself(text: str) -> None:
    assert channel_of(text, {}) == CHANNEL


@pytest.mark.parametrize(
    "text", [None, "", "signals", "@signals", "-", "-0", "1e5", "0x10", "-100 1", "٣", "9" * 17]
)
def test_everything_else_is_refused_by_name(text: str | None) -> None:
    # Broken on purpose: int() alone takes "٣" and "1_000".
    with pytest.raises(InvalidInput) as refused:
        channel_of(text, {})
    assert refused.value.field == "channel_id"


def test_a_text_that_somebody_named_is_what_was_said() -> None:
    assert channel_of("signals", {"signals": CHANNEL}) == CHANNEL
    assert channel_of("1649127710", {"1649127710": CHANNEL}) == CHANNEL
    with pytest.raises(InvalidInput, match="signals"):
        channel_of("signals", {"signals": 0})


def rows(*ids: int, text: str = "x") -> list[LegacyRow]:
    return [LegacyRow(number, str(n), text, received_at=NOW) for n, number in enumerate(ids)]


def test_batches_follow_on_each_other_and_hold_every_message_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "ROWS", 3)
    found = list(batches(4, messages(CHANNEL, rows(5, 6, 6, 9, 12, 20))))
    assert [(each.after_id, each.upto_id, each.rows) for each in found] == [(4, 9, 4), (9, 20, 2)]
    assert [m.message.message_id for each in found for m in each.merged] == [5, 6, 9, 12, 20]
    assert list(batches(4, [])) == []


def test_long_texts_make_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    # Broken on purpose: without the characters, all is one batch (P11).
    monkeypatch.setattr(batching, "CHARACTERS", 100)
    found = list(batches(-1, messages(CHANNEL, rows(1, 2, 3, text="x" * 60))))
    assert [each.upto_id for each in found] == [2, 3]


def test_what_is_refused_is_noted_with_its_batch_even_alone() -> None:
    # Broken on purpose: without a batch of its own, the end of the channel was not verified.
    found = list(messages(CHANNEL, rows(5, 5, text="x" * 70_000)))
    assert [type(each) for each in found] == [Refused]
    (batch,) = batches(-1, found)
    assert (batch.refused, batch.merged, batch.upto_id, batch.rows) == ([5], [], 5, 2)
