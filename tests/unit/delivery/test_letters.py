"""Dead letters of messages that are no events: kept whole, and the same at every delivery."""

import json
from decimal import Decimal

from telegram_hybrid.delivery import letters


def test_an_unreadable_body_is_kept_as_text_with_its_headers():
    letter = letters.of_unreadable(
        b"\xff\x00{", {"x-death": [{"count": 1}], "raw": b"\x01"}, None, "telegram.channel.-1007"
    )
    payload = json.loads(letter.payload)
    assert payload["body"] == "\\xff\x00{"
    assert payload["headers"]["x-death"] == [{"count": 1}]
    assert letter.channel_id == -1007
    assert letter.type == "unreadable"


def test_the_same_body_without_an_id_gets_the_same_id_at_every_delivery():
    first = letters.of_unreadable(b"junk", {}, None, "x")
    assert first.event_id == letters.of_unreadable(b"junk", {}, "7", "y").event_id
    assert first.event_id != letters.of_unreadable(b"other", {}, None, "x").event_id


def test_a_routing_key_that_names_no_channel_gives_channel_0():
    for key in (
        "",
        "telegram.channel.",
        "telegram.channel.x",
        "orders.12",
        f"telegram.channel.{2**70}",
    ):
        assert letters.of_unreadable(b"", {}, None, key).channel_id == 0


def test_lone_surrogates_and_foreign_header_values_do_not_stop_it():
    letter = letters.of_unreadable("\ud800", {"when": object}, None, "x")
    assert json.loads(letter.payload)["body"] == "\\ud800"


def test_headers_of_whatever_kind_are_kept_as_text():
    # Broken on purpose: without `_plain` the first raised, and ended the consumer.
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for headers, shown in (
        ({"x": "\ud800", "\ud800": 1}, {"x": "\\ud800", "\\ud800": 1}),
        ({b"\xff": [b"\xfe", {1: None}]}, {"\\xff": ["\\xfe", {"1": None}]}),
        ({"x": deep}, {"": "nested too deeply to be kept"}),
        ({"x": Decimal("1.5"), "y": True, "z": 2**70}, {"x": "1.5", "y": True, "z": str(2**70)}),
    ):
        letter = letters.of_unreadable(b"junk", headers, None, "x")
        assert json.loads(letter.payload) == {"body": "junk", "headers": shown}
