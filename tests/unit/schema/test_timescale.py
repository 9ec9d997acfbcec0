"""What is said of TimescaleDB: each thing that it lacks, and what is done instead."""

from __future__ import annotations

import pytest

from telegram_hybrid.schema.postgres.timescale import Storage, Timescale

WHOLE = Timescale("2.28.3", True, "2.28.3", "public", "timescale")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Timescale(), "not installed on this server"),
        (Timescale("2.28.3"), "not among shared_preload_libraries"),
        (Timescale("2.28.3", True), "CREATE EXTENSION timescaledb"),
        (Timescale("2.28.3", False, "2.28.3", "public"), "its library not loaded"),
        (WHOLE, "made without TimescaleDB, which is here now, and stay so"),
    ],
)
def test_native_partitions_say_why(found: Timescale, said: str) -> None:
    words = Storage(False, found).words
    assert words.startswith("messages are in native partitions: ")
    assert said in words
    assert found.usable == (found is WHOLE)


def test_a_hypertable_says_what_it_lacks() -> None:
    assert Storage(True, WHOLE).words == "messages are a hypertable of TimescaleDB 2.28.3"
    apache = Timescale("2.28.3", True, "2.28.3", "public", "apache")
    assert "never compressed: its licence is apache" in Storage(True, apache).words
    assert not apache.compresses
    unloaded = Timescale("2.28.3", False, "2.28.3", "public")
    assert "cannot be used" in Storage(True, unloaded).words
    assert Storage(None, WHOLE).words == "no messages yet"
