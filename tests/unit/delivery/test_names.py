"""Names of queues and routing keys: what no broker could hold is refused before any I/O (P10)."""

import pytest

from telegram_hybrid import InvalidInput, consumer
from telegram_hybrid.schema.broker import checked_name


@pytest.mark.parametrize("name", ["signals", "a:b.c-d_e", "x" * 255, "известия", "two words", "*#"])
def test_a_printable_name_is_taken(name: str) -> None:
    assert checked_name("queue", name) == name


@pytest.mark.parametrize(
    "name", ["", "a\0b", "a\x06\x16b", "\ud800", "x" * 256, "ж" * 128, 5, b"x"]
)
def test_a_name_that_a_broker_could_not_hold_is_refused_by_field(name: object) -> None:
    # Broken on purpose: with only emptiness checked, a name with kombu's separator made every
    # relay on that exchange fail while it read the bindings.
    with pytest.raises(InvalidInput, match="queue"):
        consumer(queue=name)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"bind\[1\]"):
        consumer(queue="q", bind=["telegram.channel.#", name])  # type: ignore[list-item]
