"""Data access for Telegram channel messages: stored once, read fast, announced reliably."""
