"""Traces: the span that an event happened in, from its writer to its handler (W3C Trace Context).

OpenTelemetry is used where it is installed, and never required. Without it a trace still goes on
from an event to those that its handler publishes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_HEADER = "traceparent"
_handled: ContextVar[str | None] = ContextVar("telegram_hybrid_traceparent", default=None)


def current() -> str | None:
    """The traceparent of OpenTelemetry's current span, else that of the event in hand, if any."""
    if (propagator := _propagator()) is not None:
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        if _HEADER in carrier:
            return carrier[_HEADER]
    return _handled.get()


@contextmanager
def continued(traceparent: str | None) -> Iterator[None]:
    """Make the span of an event the parent of what happens in the block."""
    if traceparent is None:
        yield
        return
    token = _handled.set(traceparent)
    try:
        if (propagator := _propagator()) is None:
            yield
            return
        from opentelemetry import context

        remote = context.attach(propagator.extract({_HEADER: traceparent}))
        try:
            yield
        finally:
            context.detach(remote)
    finally:
        _handled.reset(token)


@lru_cache(maxsize=1)
def _propagator() -> TraceContextTextMapPropagator | None:
    try:
        from opentelemetry.trace.propagation import tracecontext
    except ImportError:
        return None
    return tracecontext.TraceContextTextMapPropagator()
