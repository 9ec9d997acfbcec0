"""Cursors of `messages.changes` as text, and how they go on."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telegram_hybrid import InvalidInput, Settings, connect
from telegram_hybrid.model import checks
from telegram_hybrid.repositories.positions import Positions

CHANNELS = st.integers(-checks.MAX_ID + 1, checks.MAX_ID - 1).filter(bool)
VERSIONS = st.integers(0, 2**63 - 1)
POSITIONS = st.builds(Positions, st.dictionaries(CHANNELS, VERSIONS, max_size=20), st.booleans())


@given(POSITIONS)
def test_a_cursor_comes_back_as_it_was_written(positions: Positions) -> None:
    # Broken on purpose: with steps that were not relative to the channel before, they did not.
    text = positions.encode()
    assert Positions.decode(text) == positions
    assert text.isascii()
    assert not set(text) & set(" \n/+=&?%")  # fit for a file, a URL and a header


@given(POSITIONS, st.data())
def test_a_cursor_that_was_cut_or_changed_anywhere_is_refused(
    positions: Positions, data: st.DataObject
) -> None:
    # Broken on purpose: without the check sum a changed version was taken for another position.
    text = positions.encode()
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("abcXYZ019-_=. é").filter(lambda each: each != text[at]))
    for wrong in (text[:at], text[:at] + other + text[at + 1 :], text + other, text[at:] + text):
        if wrong != text:
            with pytest.raises(InvalidInput, match="cursor: "):
                Positions.decode(wrong)


@given(st.one_of(st.text(max_size=40), st.binary(max_size=40).map(lambda b: f"c1.{_text(b)}")))
def test_what_is_no_cursor_is_refused_and_nothing_else_is_raised(text: str) -> None:
    with pytest.raises(InvalidInput, match="cursor: "):
        Positions.decode(text)


@pytest.mark.parametrize("value", [None, 7, b"c1.", ["c1."], 1.5])
def test_a_cursor_is_a_string(value: object) -> None:
    with pytest.raises(InvalidInput, match="cursor: expected a string"):
        Positions.decode(value)


def test_an_endless_number_is_refused_before_it_is_read() -> None:
    # Broken on purpose: without the limit to its bits this took more than a minute.
    endless = b"\0" + b"\xff" * 1_000_000
    with pytest.raises(InvalidInput, match="cursor: "):
        Positions.decode(f"c1.{_text(endless)}")


def test_a_hundred_channels_take_some_twelve_characters_each() -> None:
    # The figure of the docstrings: real ids, and versions of a store with ten million changes.
    versions = {-1_001_000_000_000 - n * 7_654_321: 9_000_000 + n * 9_999 for n in range(100)}
    text = Positions(versions, everywhere=True).encode()
    assert len(text) <= 100 * 12 + 20
    damaged = bytearray(urlsafe_b64decode(text[3:] + "=="))
    damaged[10] ^= 1
    with pytest.raises(InvalidInput):
        Positions.decode(f"c1.{_text(bytes(damaged))}")


@given(POSITIONS, st.lists(st.tuples(CHANNELS, VERSIONS)))
def test_positions_never_go_back_whatever_they_are_told(
    positions: Positions, told: list[tuple[int, int]]
) -> None:
    after = positions.reached(told)
    for channel_id, version in [*positions.versions.items(), *told]:
        assert after.versions[channel_id] >= version
    assert after.versions.keys() == positions.versions.keys() | {each for each, _ in told}
    assert after.everywhere == positions.everywhere


def test_a_channel_counts_as_asked_for_with_or_without_a_change() -> None:
    # Broken on purpose: without the zeros, a channel without a change was asked for anew each time.
    chosen = Positions({-1: 5}).asked([-1, -2])
    assert chosen == Positions({-1: 5, -2: 0})
    assert chosen.asked(None) == Positions({-1: 5, -2: 0}, everywhere=True)
    assert chosen.asked(None).asked([-3]) == chosen.asked(None)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("cursor", {"cursor": "tomorrow"}),
        ("cursor", {"cursor": 7}),
        ("limit", {"limit": 0}),
        ("limit", {"limit": 10_001}),
        ("channels", {"channels": -1001}),
        ("channels[1]", {"channels": [-1001, 0]}),
    ],
)
def test_bad_input_is_refused_before_the_database_is_asked(
    field: str, wrong: dict[str, Any]
) -> None:
    with (
        connect(Settings.from_url("postgresql://nobody@127.0.0.1:1/none")) as hybrid,
        pytest.raises(InvalidInput) as caught,
    ):
        hybrid.messages.changes(**wrong)
    assert caught.value.field == field


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
