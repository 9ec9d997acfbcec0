"""Shapes of the outside world that become messages: Desktop exports, Bot API, Telethon."""

from telegram_hybrid.sources.reader import Reader, open_source
from telegram_hybrid.sources.report import Report, Skipped
from telegram_hybrid.sources.sample import sample_path

__all__ = ["Reader", "Report", "Skipped", "open_source", "sample_path"]
