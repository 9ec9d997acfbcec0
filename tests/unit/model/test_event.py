"""Events of one's own: refused when nobody could deliver them, read in the current version."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

import telegram_hybrid as th
from telegram_hybrid.errors import InvalidInput, UnknownVersion
from telegram_hybrid.model import Record
from telegram_hybrid.model.checks import MAX_METADATA
from telegram_hybrid.model.upcasting import Upcasters
from telegram_hybrid.testing import make_message

LONG = {"text": "x" * MAX_METADATA}
LOOP: dict[str, Any] = {}
LOOP["again"] = LOOP


@pytest.mark.parametrize(
    ("field", "kind", "payload", "options"),
    [
        ("type", "orders opened", {}, {}),
        ("type", "orders.*", {}, {}),
        ("type", "orders.#", {}, {}),
        ("type", "", {}, {}),
        ("type", ".orders", {}, {}),
        ("type", "orders.opened\n", {}, {}),
        ("type", "x" * 201, {}, {}),
        ("type", "telegram.channel.-1001", {}, {}),
        ("type", "message.pinned", {}, {}),
        ("type", "unreadable", {}, {}),
        ("type", 5, {}, {}),
        ("type", "orders", make_message(), {"channel_id": make_message().channel_id}),
        ("payload", "orders", [1], {}),
        ("payload", "orders", "text", {}),
        ("payload", "orders", {"at": object()}, {}),
        ("payload", "orders", LOOP, {}),
        ("payload", "orders", LONG, {}),
        ("payload.legs[1].price", "orders", {"legs": [{}, {"price": float("nan")}]}, {}),
        ("payload.text", "orders", {"text": "a\0b"}, {}),
        ("payload", th.EventType.RECEIVED, {}, {}),
        ("channel_id", "orders", {}, {"channel_id": None}),
        ("channel_id", "orders", {}, {"channel_id": 0}),
        ("channel_id", "orders", {}, {"channel_id": 2**52}),
        ("channel_id", "orders", {}, {"channel_id": "-1001"}),
        ("channel_id", th.EventType.RECEIVED, make_message(channel_id=-1001), {"channel_id": -2}),
        ("version", "orders", {}, {"version": 0}),
        ("version", "orders", {}, {"version": 2**31}),
        ("traceparent", "orders", {}, {"traceparent": "00-abc"}),
        ("traceparent", "orders", {}, {"traceparent": f"00-{'0' * 32}-{'1' * 16}-01"}),
        ("traceparent", "orders", {}, {"traceparent": f"ff-{'1' * 32}-{'1' * 16}-01"}),
    ],
)
def test_what_could_not_be_delivered_is_refused_by_field(field, kind, payload, options):
    with pytest.raises(InvalidInput) as refused:
        th.Event(kind, payload, **({"channel_id": -1001} | options))
    assert refused.value.field == field


def test_the_channel_has_to_be_said_unless_it_is_the_messages():
    with pytest.raises(InvalidInput, match="channel_id"):
        th.Event("orders.opened", {})
    event = th.Event(th.EventType.EDITED, make_message(channel_id=-1001, message_id=4))
    assert (event.channel_id, event.message_id, event.key) == (-1001, 4, (-1001, 4))


def test_an_event_is_plain_json_of_its_own_and_has_no_message():
    legs = (1, 2)
    given = {"legs": legs, "at": datetime(2025, 1, 1, tzinfo=UTC)}
    event = th.Event("orders.opened", given, channel_id=-1001)
    given["more"] = 1
    assert event.payload == {"legs": [1, 2], "at": "2025-01-01T00:00:00Z"}
    assert event.message_id is None
    with pytest.raises(InvalidInput, match=r"orders\.opened"):
        event.message  # noqa: B018


def record(payload: str, version: int, kind: str = "test.orders", message_id: int | None = None):
    return Record(
        event_id=UUID(int=7),
        type=kind,
        channel_id=-1001,
        message_id=message_id,
        payload=payload,
        version=version,
        traceparent=None,
        occurred_at=datetime(2025, 1, 1, tzinfo=UTC),
        sequence=9,
    )


@th.upcaster("test.orders", 1)
def _with_currency(payload: dict[str, Any]) -> dict[str, Any]:
    payload["currency"] = "USD"
    return payload


@th.upcaster("test.orders", 2)
def _in_cents(payload: dict[str, Any]) -> dict[str, Any]:
    return payload | {"price": payload["price"] * 100}


def test_old_payloads_come_in_the_current_version_and_new_events_have_it():
    # Broken on purpose: `range(version, current - 1)` in `bring` left the price in dollars.
    for version, payload in (
        (1, '{"price": 14}'),
        (2, '{"price": 14, "currency": "USD"}'),
        (3, '{"price": 1400, "currency": "USD"}'),
    ):
        event = record(payload, version).event()
        assert (event.version, event.payload) == (3, {"price": 1400, "currency": "USD"})
    assert th.Event("test.orders", {}, channel_id=-1001).version == 3
    assert th.Event("test.orders", {}, channel_id=-1001, version=2).version == 2
    assert th.Event("test.others", {}, channel_id=-1001).version == 1


def test_a_version_of_the_future_says_what_to_do():
    with pytest.raises(UnknownVersion, match="up to 3; upgrade") as told:
        record("{}", 4).event()
    assert (told.value.schema, told.value.version) == ("test.orders", 4)
    assert told.value.field == "version"
    with pytest.raises(UnknownVersion, match="message 2: "):
        record("{}", 2, "message.received", 5).event()


def test_a_step_that_fails_or_is_missing_is_an_unknown_version():
    upcasters = Upcasters()
    upcasters.add("a", 2, lambda payload: {"b": payload["b"]})
    upcasters.add("b", 1, lambda payload: 7)  # type: ignore[arg-type,return-value]
    with pytest.raises(UnknownVersion, match="no upcaster from version 1"):
        upcasters.bring("a", 1, {})
    with pytest.raises(UnknownVersion, match="version 2 raised KeyError"):
        upcasters.bring("a", 2, {})
    with pytest.raises(UnknownVersion, match="returned int"):
        upcasters.bring("b", 1, {})


def test_one_version_has_one_upcaster():
    upcasters = Upcasters()
    upcasters.add("a", 1, _in_cents)
    upcasters.add("a", 1, _in_cents)  # as when a module is imported under two names
    with pytest.raises(InvalidInput, match="already"):
        upcasters.add("a", 1, _with_currency)


@pytest.mark.parametrize(("field", "topic", "version"), [("topic", "a b", 1), ("version", "a", 0)])
def test_an_upcaster_that_would_never_be_called_is_refused(field, topic, version):
    with pytest.raises(InvalidInput) as refused:
        th.upcaster(topic, version)
    assert refused.value.field == field


@pytest.mark.parametrize("payload", ["", "[]", "{", "7", '{"a": "\ud800"}'])
def test_a_payload_that_is_no_object_is_refused(payload):
    with pytest.raises(InvalidInput):
        record(payload, 1, "test.others").event()
