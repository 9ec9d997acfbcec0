"""Revisions and functions of the schema are the same on every kind of PostgreSQL."""

from servers.kinds import pytest_generate_tests, telegram_servers

__all__ = ["pytest_generate_tests", "telegram_servers"]
