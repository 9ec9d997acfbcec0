"""Traces go on from writer to handler, with OpenTelemetry and without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from telegram_hybrid.observe import traces

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(sys.modules):
        if name.partition(".")[0] == "opentelemetry":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    traces._propagator.cache_clear()
    yield
    traces._propagator.cache_clear()


def test_the_current_span_is_told_and_none_is_none():
    trace = pytest.importorskip("opentelemetry.trace")
    assert traces.current() is None
    span = trace.SpanContext(0xA, 0xB, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(span)):
        assert traces.current() == f"00-{0xA:032x}-{0xB:016x}-01"
    assert traces.current() is None


def test_a_handler_has_the_events_span_as_its_parent_and_only_meanwhile():
    # Broken on purpose: without `detach`, the span outlived its event.
    trace = pytest.importorskip("opentelemetry.trace")
    with pytest.raises(KeyError), traces.continued(PARENT):
        parent = trace.get_current_span().get_span_context()
        assert (parent.trace_id, parent.is_remote) == (int("a" * 32, 16), True)
        assert traces.current() == PARENT
        raise KeyError
    assert not trace.get_current_span().get_span_context().is_valid
    assert traces.current() is None


@pytest.mark.usefixtures("without_opentelemetry")
def test_without_opentelemetry_the_trace_of_the_event_in_hand_goes_on():
    with traces.continued(PARENT):
        assert traces.current() == PARENT
        with traces.continued(None):
            assert traces.current() == PARENT
    assert traces.current() is None
