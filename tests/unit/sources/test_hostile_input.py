"""Whatever comes in, what goes out is messages, counts, or an InvalidInput: nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exports import post
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.sources import open_source, sample_path
from telegram_hybrid.sources.botapi import from_update
from telegram_hybrid.sources.desktop_message import Chat, to_message

SAMPLE = sample_path().read_bytes()
SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["user1", "channel9", "2024-05-01T10:00:00", "1714564800", "0", "\ud800", "²"]),
)
ANYTHING = st.recursive(
    SCALAR,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["id", "type", "text", "file_id", "width", "user", "offset", "length"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=6,
)
DESKTOP_KEYS = [
    *("id", "type", "date", "date_unixtime", "edited", "edited_unixtime", "from", "from_id"),
    *("actor", "actor_id", "action", "text", "text_entities", "reply_to_message_id", "file"),
    *("reply_to_peer_id", "photo", "photo_file_size", "file_size", "file_name", "media_type"),
    *("width", "height", "duration_seconds", "mime_type", "poll", "place_name", "x\0"),
]
BOT_KEYS = [
    *("message_id", "date", "edit_date", "chat", "from", "sender_chat", "text", "caption"),
    *("entities", "caption_entities", "reply_to_message", "message_thread_id", "media_group_id"),
    *("photo", "animation", "document", "video", "video_note", "venue", "location", "poll"),
    *("pinned_message", "new_chat_title", "x\0"),
]


def refusal(attempt: Callable[[], object]) -> str | None:
    """Return the message of the InvalidInput that an attempt ends with, if it does."""
    try:
        attempt()
    except InvalidInput as error:
        return str(error)
    return None


def fields(keys: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(keys), ANYTHING, min_size=1, max_size=5)


@given(fields(DESKTOP_KEYS))
@settings(max_examples=100, deadline=None)
def test_any_raw_desktop_message_is_taken_or_refused(changed: dict[str, Any]) -> None:
    chat = Chat(-1001, "private_supergroup", topics={1, 2})
    assert refusal(lambda: to_message({**post(), **changed}, chat)) != ""


@given(fields(BOT_KEYS))
@settings(max_examples=100, deadline=None)
def test_any_bot_api_message_is_taken_or_refused(changed: dict[str, Any]) -> None:
    message = {"message_id": 1, "date": 1714564800, "chat": {"id": 5}, "text": "hi", **changed}
    assert refusal(lambda: from_update({"update_id": 1, "message": message})) != ""


def survives(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for policy in ("raise", "skip"):
        problem = refusal(lambda: list(open_source(path, on_error=policy)))  # type: ignore[arg-type]  # noqa: B023
        if problem is not None:
            assert problem.startswith(f"{path}: ")
            assert len(problem) < 2_000


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "mutant.json"


@given(st.integers(0, len(SAMPLE) - 1), st.binary(max_size=6), st.integers(0, 40))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(0, b"[[", 0)
@example(2000, b"9" * 5000, 0)
@example(2000, b"\\ud800", 0)
@example(2000, b"\\x0", 0)
def test_a_damaged_export_never_breaks_the_reader(
    place: Path, at: int, put: bytes, cut: int
) -> None:
    survives(place, SAMPLE[:at] + put + SAMPLE[at + cut :])


@given(st.binary(max_size=200))
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_random_bytes_never_break_the_reader(place: Path, content: bytes) -> None:
    survives(place, content)
    survives(place, b'{"update_id": 1, "message": ' + content + b"}\n" + content)
