"""Failures of Redis connections: in our tree and in redis-py's, so that either is caught."""

from __future__ import annotations

import socket
import ssl

import redis

from telegram_hybrid.errors import ConfigurationError, RedisUnavailable


class NotConnected(RedisUnavailable, redis.ConnectionError):
    """No connection was had: the command was certainly not sent."""


class NoReply(RedisUnavailable, redis.ConnectionError):
    """The deadline passed, or the connection broke, after a command had been sent."""


class Misconfigured(ConfigurationError, redis.ConnectionError):
    """A server is there, but a setting keeps us out: trying again is vain."""


def explain(error: BaseException) -> tuple[str, bool]:
    """Say why a connection failed, and whether a setting is to blame; never quotes a secret."""
    for each in _chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            why = f"its TLS certificate was refused ({each.verify_message})"
            return f"{why}: check TELEGRAM_REDIS_CA or ssl_ca_certs", True
        if isinstance(each, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return "closed the connection amid the TLS handshake", False  # as a server that dies
        if isinstance(each, ssl.SSLError):
            return f"TLS failed ({each.reason}): check TELEGRAM_REDIS_TLS or rediss://", True
        if isinstance(each, socket.gaierror):
            return "the host name cannot be resolved: check TELEGRAM_REDIS_URL or _HOST", False
        if isinstance(each, redis.AuthenticationError | redis.exceptions.NoPermissionError):
            return f"user or password refused ({each}): check TELEGRAM_REDIS_PASSWORD", True
        if isinstance(each, TimeoutError | redis.TimeoutError):
            return "does not answer in time", False
        if isinstance(each, ConnectionRefusedError):
            return "refuses connections: nothing listens there", False
    return str(error) or type(error).__name__, False


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error and what it was raised for, innermost first."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.insert(0, error)
        error = error.__cause__ or error.__context__
    return found
