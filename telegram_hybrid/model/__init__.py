"""Values only: messages, channels, events and results, frozen and checked; no I/O."""

from telegram_hybrid.model.changes import Changes, MessageChange
from telegram_hybrid.model.channel import Channel
from telegram_hybrid.model.claim import Claim
from telegram_hybrid.model.event import Change, ChannelWrite, Event, EventType, Record
from telegram_hybrid.model.message import (
    Entity,
    Media,
    Message,
    MessageKey,
    MessageType,
    Source,
    Status,
)
from telegram_hybrid.model.registry import Gap, GapReport, Migration, UnknownChannels
from telegram_hybrid.model.results import Outcome, Revision, RevisionReason, SaveCounts, Saved
from telegram_hybrid.model.search import Found, FoundPage, Match
from telegram_hybrid.model.statistics import Count, Latency, Series, Statistics

__all__ = [
    "Change",
    "Changes",
    "Channel",
    "ChannelWrite",
    "Claim",
    "Count",
    "Entity",
    "Event",
    "EventType",
    "Found",
    "FoundPage",
    "Gap",
    "GapReport",
    "Latency",
    "Match",
    "Media",
    "Message",
    "MessageChange",
    "MessageKey",
    "MessageType",
    "Migration",
    "Outcome",
    "Record",
    "Revision",
    "RevisionReason",
    "SaveCounts",
    "Saved",
    "Series",
    "Source",
    "Statistics",
    "Status",
    "UnknownChannels",
]
