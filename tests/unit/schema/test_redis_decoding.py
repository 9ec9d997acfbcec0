"""Decoding what we have encoded: as the model does it, value for value, only sooner."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec
import pytest

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Entity, Media, Message, MessageType, Source, Status
from telegram_hybrid.schema.redis.decoding import decode

START = datetime(2020, 1, 1, tzinfo=UTC)
WHOLE = Message(
    channel_id=-1001649127710,
    message_id=7,
    sent_at=START,
    text="цель 📈",
    caption="a caption",
    entities=(
        Entity(type="text_link", offset=0, length=4, url="https://example.org"),
        Entity(type="mention", offset=5, length=1, user_id=5, language="x", custom_emoji_id="1"),
    ),
    edited_at=START,
    message_type=MessageType.MESSAGE,
    source=Source.BOT,
    sender_id=-5,
    sender_name="Signals",
    reply_to_id=3,
    thread_id=4,
    grouped_id=-9,
    media=(
        Media(type="photo", file_id="A", path="p", name="n", mime_type="image/png", size=3),
        Media(type="video", width=4, height=5, duration=0.5),
    ),
    metadata={"views": 3, "deep": [{"a": [None, 1.5, "x"]}]},
    status=Status.QUEUED,
    version=12,
    received_at=START,
    deleted_at=START,
    delete_reason="spam",
    status_reason="later",
)

#: What stands at the edge of what some field takes, on either side, and what is of another kind.
ODD: list[Any] = [
    None, True, False, 0, -0.0, 1, -1, 1.5, 1e9, 1e9 - 1, -0.5, "", "x", "bot", "queued", "message",
    2**52, 2**52 - 1, 2**52 + 1, -(2**52), 1 - 2**52, 2**63, 2**63 - 1, -(2**63), 1 - 2**63, 2**64,
    2**70, "x" * 4096, "x" * 4097, "x" * 65_536, "x" * 65_537, "a\0b", "\ud800", "\x1f", "\\u0000",
    "2020-01-01T00:00:00Z", "2020-01-01T00:00:00", "2020-01-01T02:00:00+02:00",
    "2020-01-01T00:00:00+00:00", "2020-01-01T00:00:00.123456789Z", "1969-12-31T23:59:59Z",
    "1970-01-01T00:00:00Z", "2099-12-31T23:59:59Z", "2100-01-01T00:00:00Z", "0001-01-01T00:00:00Z",
    "2020-01-01", [], {}, [None], [1], {"a": 1}, {"": ""}, {"a\0": 1}, {"a": "\0"}, {"a": 2**70},
    {"a": 1e400}, {"a": "x" * 262_144}, {"a": "x" * 262_136}, [{"type": "x"}],
    [{"type": "x", "offset": 0, "length": 0}], [{"type": "x", "extra": 1}],
]  # fmt: skip


def said(fields: dict[str, Any], *, escaped: bool = False) -> bytes:
    return json.dumps(fields, ensure_ascii=escaped).encode(errors="surrogatepass")


def outcome(read: Any, data: bytes) -> Any:
    """What it gives, with the types of everything in it; or that it is refused."""
    try:
        message = read(data)
    except (InvalidInput, msgspec.DecodeError, RecursionError):
        return "refused"
    assert type(message) is Message
    return repr(attrs.astuple(message, recurse=False)), message.metadata


def differing(fields: dict[str, Any]) -> list[bytes]:
    """The ways of saying this of which they make different things."""
    ways = [said(fields, escaped=escaped) for escaped in (False, True)]
    return [each for each in ways if outcome(decode, each) != outcome(Message.from_json, each)]


FULL: dict[str, Any] = json.loads(WHOLE.to_json())


@pytest.mark.parametrize("name", [*FULL, "stale", "unknown"])
def test_an_odd_value_is_taken_or_refused_as_the_model_does(name: str) -> None:
    """Broken on purpose: any one of the bounds, or the zones and the years of times, the look for
    escapes or for zeros, left out."""
    for value in ODD:
        assert differing(FULL | {name: value}) == []
    assert differing({key: value for key, value in FULL.items() if key != name}) == []


@pytest.mark.parametrize("part", ["entities", "media"])
def test_an_odd_value_in_a_part_is_taken_or_refused_as_the_model_does(part: str) -> None:
    for at, one in enumerate(FULL[part]):
        for name in [field.name for field in attrs.fields(Entity if part == "entities" else Media)]:
            for value in ODD:
                parts = [*FULL[part][:at], one | {name: value}, *FULL[part][at + 1 :]]
                assert differing(FULL | {part: parts}) == []


@pytest.mark.parametrize("levels", [10, 255, 256, 257, 400])
def test_metadata_is_as_deep_as_the_model_takes_it(levels: int) -> None:
    deep: Any = {}
    for _ in range(levels - 1):
        deep = {"a": deep}
    assert differing(FULL | {"metadata": deep}) == []


def test_nothing_is_shared_between_messages() -> None:
    one, other = decode(said({**FULL, "metadata": {}})), decode(said({**FULL, "metadata": {}}))
    one.metadata["a"] = 1
    assert other.metadata == {}
    least = {name: FULL[name] for name in ("channel_id", "message_id", "sent_at")}
    decode(said(least)).metadata["a"] = 1
    assert decode(said(least)).metadata == {}


def test_ordinary_messages_are_not_checked_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    # Broken on purpose: with everything left to the model, this fails and all the others pass.
    def checked(_: object) -> Message:
        raise AssertionError("the model's own checks were asked")

    data = WHOLE.to_json()
    monkeypatch.setattr(Message, "from_json", checked)
    assert decode(data) == WHOLE
    monkeypatch.setattr(Message, "__attrs_post_init__", checked)
    found = decode(data)
    assert (found.entities, found.media, found.status) == (WHOLE.entities, WHOLE.media, "queued")
