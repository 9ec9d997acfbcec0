"""Last known values where no thread can be had to load the present one."""

from __future__ import annotations

import threading
from threading import Event

import pytest

from telegram_hybrid.cache.last import LastKnown


def test_where_no_thread_can_be_started_the_next_who_asks_has_it_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Seen to fail: the caller got a RuntimeError, and nobody loaded that key in the background
    # again, so that the last known value was answered for as long as it was kept.
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    known, loaded = LastKnown(), Event()

    def ask() -> str:
        return known.read(
            "key",
            lambda: loaded.set() or "present",
            lambda: "last",
            hit=lambda: None,
            if_error=False,
        )

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert ask() == "last"
        assert not loaded.is_set()
    assert ask() == "last"
    assert loaded.wait(10)
    known.close()
