"""From the original system's database into this store: check, bring, verify, roll back."""

from telegram_hybrid.legacy.migrating import migrate
from telegram_hybrid.legacy.removing import rollback
from telegram_hybrid.legacy.report import ChannelResult, Found, Migrated, OnError, RolledBack

__all__ = [
    "ChannelResult",
    "Found",
    "Migrated",
    "OnError",
    "RolledBack",
    "migrate",
    "rollback",
]
