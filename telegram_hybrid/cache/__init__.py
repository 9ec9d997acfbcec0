"""The cache-aside reads: protocol sans I/O, windows, and the shell over redis-py."""

from telegram_hybrid.cache.audit import Audit
from telegram_hybrid.cache.last import Allowed
from telegram_hybrid.cache.protocol import Lifetimes
from telegram_hybrid.cache.requests import Load, Loaded
from telegram_hybrid.cache.shell import MessageCache
from telegram_hybrid.cache.stats import CacheStats
from telegram_hybrid.cache.window import (
    EVERY_ID,
    after_from,
    after_from_pages,
    latest_from,
    pages_after,
    sealed,
)
from telegram_hybrid.schema.redis.values import Window

__all__ = [
    "EVERY_ID",
    "Allowed",
    "Audit",
    "CacheStats",
    "Lifetimes",
    "Load",
    "Loaded",
    "MessageCache",
    "Window",
    "after_from",
    "after_from_pages",
    "latest_from",
    "pages_after",
    "sealed",
]
