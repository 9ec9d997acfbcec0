"""What every repository does, it does on every kind of PostgreSQL."""

from servers.kinds import pytest_generate_tests, telegram_servers

__all__ = ["pytest_generate_tests", "telegram_servers"]
