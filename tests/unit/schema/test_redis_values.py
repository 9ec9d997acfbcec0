"""Values: JSON with the version first; what cannot be vouched for is a miss."""

import json
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telegram_hybrid.model import Entity, Media, Message, Status
from telegram_hybrid.schema.redis import values
from telegram_hybrid.schema.redis.values import Window

CHANNEL = -1001649127710
LIFE = values.Life(1793000000.123, 0.002)
START = datetime(2020, 1, 1, tzinfo=UTC)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    return Message(
        channel_id=CHANNEL,
        message_id=7,
        sent_at=START + draw(st.timedeltas(timedelta(0), timedelta(days=3000))),
        text=draw(TEXTS),
        caption=draw(st.none() | TEXTS),
        entities=draw(st.just(()) | st.just((Entity(type="bold", offset=0, length=2),))),
        media=draw(st.just(()) | st.just((Media(type="photo", size=3, duration=0.5),))),
        metadata=draw(st.dictionaries(TEXTS, st.integers(-9, 9) | TEXTS | st.none(), max_size=3)),
        version=draw(st.integers(0, 2**63 - 1)),
        status=draw(st.sampled_from(Status)),
        received_at=draw(st.none() | st.just(START)),
        deleted_at=draw(st.none() | st.just(START)),
    )


def whole(message: Message) -> list[object]:
    """All fields, those that take no part in equality too."""
    return [getattr(message, name) for name in Message.__slots__ if name != "__weakref__"]


@given(messages())
def test_a_message_survives_and_its_version_comes_first(message: Message) -> None:
    data = values.encode_message(message, LIFE)
    assert list(json.loads(data)) == ["version", "schema", "until", "cost", "message"]
    assert data.startswith(b'{"version":%d,' % message.version)
    found = values.decode_message(data, CHANNEL, 7)
    assert whole(found.message) == whole(message)
    assert (found.until, found.cost) == (LIFE.until, LIFE.cost)


@given(messages(), st.sets(st.integers(0, 50), max_size=8), st.integers(1, 8))
def test_a_window_survives(message: Message, ids: set[int], size: int) -> None:
    newest = [attrs.evolve(message, message_id=i) for i in sorted(ids, reverse=True)[:size]]
    window = Window.of(newest, size, 9)
    stored = values.encode_window(window, LIFE)
    names = ["version", "schema", "until", "cost", "lo", "hi", "complete", "messages"]
    assert list(json.loads(stored)) == names
    assert values.decode_window(stored, CHANNEL) == (window, LIFE)
    assert stored.count(b"\n") == max(1, len(newest)) + 1, "one message a line"


@given(st.binary(max_size=200))
def test_noise_is_a_miss(data: bytes) -> None:
    assert values.decode_message(data, CHANNEL, 7) is None
    assert values.decode_window(data, CHANNEL) is None


@given(message=messages(), cut=st.integers(1, 60))
def test_a_truncated_value_is_a_miss(message: Message, cut: int) -> None:
    assert values.decode_message(values.encode_message(message, LIFE)[:-cut], CHANNEL, 7) is None


def message(message_id: int, channel_id: int = CHANNEL, version: int = 3) -> Message:
    return Message(channel_id=channel_id, message_id=message_id, sent_at=START, version=version)


GOOD = values.encode_message(message(7), LIFE)


@pytest.mark.parametrize(
    "data",
    [
        values.encode_message(message(8), LIFE),
        values.encode_message(message(7, -1002), LIFE),
        GOOD.replace(b'"schema":1', b'"schema":2'),
        GOOD.replace(b'"schema":1,', b""),
        GOOD.replace(b'{"version":3,"schema', b'{"version":4,"schema'),
        GOOD.replace(b'"message_id":7', b'"message_id":-7'),
        GOOD.replace(b'"message_id":7', b'"message_id":7,"metadata":' + b"[" * 9999),
        GOOD.replace(b'"message_id":7', b'"message_id":7,"text":"\xff"'),
        GOOD.replace(b'"message_id":7', b'"message_id":7,"text":"\\u0000"'),
        b"null",
        b"7",
        values.SEEN,
    ],
)
def test_a_foreign_or_contradictory_message_is_a_miss(data: bytes) -> None:
    assert data != GOOD
    assert values.decode_message(data, CHANNEL, 7) is None


WINDOW = values.encode_window(Window.of([message(9), message(7)], 2, 3), LIFE)


@pytest.mark.parametrize(
    "data",
    [
        values.encode_window(Window.of([message(9, -1002)], 2, 3), LIFE),
        WINDOW.replace(b'"schema":1', b'"schema":2'),
        WINDOW.replace(b'"lo":7', b'"lo":8'),
        WINDOW.replace(b'"hi":9', b'"hi":8'),
        WINDOW.replace(b'"message_id":9', b'"message_id":6').replace(b'"hi":9', b'"hi":6'),
        GOOD,
    ],
)
def test_a_foreign_or_contradictory_window_is_a_miss(data: bytes) -> None:
    assert data != WINDOW
    assert values.decode_window(data, CHANNEL) is None


def test_what_is_too_long_is_neither_encoded_nor_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MAX_BYTES", len(GOOD) - 1)
    assert values.encode_message(message(7), LIFE) is None
    assert values.decode_message(GOOD, CHANNEL, 7) is None
    assert values.encode_window(Window.of([message(9), message(7)], 2, 3), LIFE) is None
    assert values.decode_window(WINDOW, CHANNEL) is None


def test_the_longest_message_of_the_model_fits() -> None:
    longest = Message(
        channel_id=CHANNEL,
        message_id=7,
        sent_at=START,
        text="\x01" * 65_536,
        caption="\x01" * 65_536,
        metadata={"x": "y" * 262_000},
    )
    assert len(values.encode_message(longest, LIFE)) < values.MAX_BYTES
