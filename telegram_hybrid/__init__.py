"""Data access for Telegram channel messages: stored once, read fast, announced reliably.

    import telegram_hybrid as th

    with th.connect() as hybrid:
        hybrid.messages.save(message)
        hybrid.messages.latest(channel_id, limit=100)

Importing this package opens nothing and reads nothing; drivers are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from telegram_hybrid._version import __version__
from telegram_hybrid.errors import HybridError, InvalidInput
from telegram_hybrid.model import (
    Change,
    Changes,
    Channel,
    Claim,
    Count,
    Entity,
    Event,
    EventType,
    Found,
    FoundPage,
    Gap,
    GapReport,
    Latency,
    Match,
    Media,
    Message,
    MessageChange,
    MessageKey,
    MessageType,
    Migration,
    Outcome,
    Revision,
    RevisionReason,
    SaveCounts,
    Saved,
    Series,
    Source,
    Statistics,
    Status,
    UnknownChannels,
)
from telegram_hybrid.model.upcasting import upcaster
from telegram_hybrid.settings import Settings

if TYPE_CHECKING:
    from telegram_hybrid.delivery.subscription import consumer
    from telegram_hybrid.embedded.session import open_embedded as embedded
    from telegram_hybrid.hybrid import Hybrid, connect

__all__ = [
    "Change",
    "Changes",
    "Channel",
    "Claim",
    "Count",
    "Entity",
    "Event",
    "EventType",
    "Found",
    "FoundPage",
    "Gap",
    "GapReport",
    "Hybrid",
    "HybridError",
    "InvalidInput",
    "Latency",
    "Match",
    "Media",
    "Message",
    "MessageChange",
    "MessageKey",
    "MessageType",
    "Migration",
    "Outcome",
    "Revision",
    "RevisionReason",
    "SaveCounts",
    "Saved",
    "Series",
    "Settings",
    "Source",
    "Statistics",
    "Status",
    "UnknownChannels",
    "__version__",
    "connect",
    "consumer",
    "embedded",
    "upcaster",
]

_LATE = {
    "Hybrid": "telegram_hybrid.hybrid",
    "consumer": "telegram_hybrid.delivery.subscription",
}


def __getattr__(name: str) -> Any:
    """Import what needs a driver when it is first asked for (PEP 562)."""
    if name in ("connect", "embedded"):
        return importlib.import_module(f"telegram_hybrid.{name}")
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
