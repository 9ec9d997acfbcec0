"""Failures of Redis connections: in our tree and in redis-py's, so that either is caught."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis

from telegram_hybrid.errors import ConfigurationError, RedisUnavailable

_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")

#: The server says that it did not perform the command, and another or the same one soon will.
REFUSALS = (
    redis.ReadOnlyError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.MasterDownError,
)


class NotConnected(RedisUnavailable, redis.ConnectionError):
    """No connection was had: the command was certainly not sent."""


class NoReply(RedisUnavailable, redis.ConnectionError):
    """The deadline passed, or the connection broke, after a command had been sent."""


class Misconfigured(ConfigurationError, redis.ConnectionError):
    """A server is there, but a setting keeps us out: trying again is vain."""


def explain(error: BaseException, options: Mapping[str, Any]) -> tuple[str, bool]:
    """Say why a connection failed, and whether a setting is to blame; never quotes a secret.

    `options` are redis-py's for the connection.
    """
    chain = _chain(error)
    # OpenSSL does not say which file it did not find.
    if any(isinstance(each, OSError) for each in chain) and (file := _missing_file(options)):
        return f"{file} cannot be read: check TELEGRAM_REDIS_CA or the URL's option", True
    for each in chain:
        if isinstance(each, ssl.SSLCertVerificationError):
            why = f"its TLS certificate was refused ({each.verify_message})"
            return f"{why}: check TELEGRAM_REDIS_CA or ssl_ca_certs", True
        if isinstance(each, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return "closed the connection amid the TLS handshake", False  # as a server that dies
        if isinstance(each, ssl.SSLError):
            words = "check TELEGRAM_REDIS_TLS and _CA, or rediss:// and ssl_ca_certs"
            return f"TLS failed ({each.reason}): {words}", True
        if isinstance(each, socket.gaierror):
            words = "TELEGRAM_REDIS_URL or _HOST, or _ADDRESS_MAP if a server announces it"
            return f"the host name cannot be resolved: check {words}", False
        if isinstance(each, redis.AuthenticationError | redis.exceptions.NoPermissionError):
            return f"user or password refused ({each}): check TELEGRAM_REDIS_PASSWORD", True
        if isinstance(each, TimeoutError | redis.TimeoutError):
            return "does not answer in time", False
        if isinstance(each, ConnectionRefusedError):
            return "refuses connections: nothing listens there", False
    return _answered(error)


def _answered(error: BaseException) -> tuple[str, bool]:
    """Of the error itself: some of those before it redis-py forgave, for servers that are older."""
    if isinstance(error, redis.InvalidResponse):
        return "is no Redis, by its answer: check TELEGRAM_REDIS_URL or _HOST and _PORT", True
    if isinstance(error, redis.ResponseError) and not isinstance(error, REFUSALS):
        return f"refused us ({error}): check TELEGRAM_REDIS_URL", True
    return str(error) or type(error).__name__, False


def _missing_file(options: Mapping[str, Any]) -> str | None:
    """The first of TLS' files that cannot be read, with the option that names it."""
    for name in _FILES:
        path = options.get(name)
        try:
            if path:
                Path(path).open("rb").close()
        except OSError:
            return f"{name}={path}"
    return None


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error and what it was raised for, innermost first."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.insert(0, error)
        error = error.__cause__ or error.__context__
    return found
