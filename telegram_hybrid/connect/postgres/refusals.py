"""Refusals: which failures to connect no repetition cures, and what to do about them.

A failed login has no SQLSTATE for the client (libpq keeps only its words), so these are the words
of PostgreSQL 15 to 18, PgBouncer 1.18 and libpq. A server that speaks another language
(`lc_messages`) is tried again until the deadline; then its words are told, with a hint.
"""

from __future__ import annotations

import re

import psycopg

_LOGIN = "check TELEGRAM_DATABASE_URL, or TELEGRAM_DB_USER and TELEGRAM_DB_PASSWORD"
_NAME = "check TELEGRAM_DATABASE_URL, or TELEGRAM_DB_NAME"
_TLS = "check sslmode and sslrootcert in TELEGRAM_DATABASE_URL, and the server's certificate"
_HOST = "check TELEGRAM_DATABASE_URL, or TELEGRAM_DB_HOST"
_OPTION = "check the options after the '?' in TELEGRAM_DATABASE_URL"

_REFUSALS = [
    (re.compile(pattern), advice)
    for pattern, advice in (
        (r"authentication failed|no password supplied|role .* does not exist|no such user", _LOGIN),
        (r"database .* does not exist|no such database", _NAME),
        # An end amid the handshake is a server that goes down or has no room.
        (r"certificate|does not support SSL|SSL error: (?!unexpected eof)", _TLS),
        (r"no pg_hba.conf entry|SSL required", _TLS),
        (r"failed to resolve host", _HOST),
        (r"invalid connection option|invalid \w+ value|unsupported startup parameter", _OPTION),
    )
]


def advice(error: BaseException | str | None) -> str | None:
    """Say which setting to look at; None if `error` is not a refusal."""
    told = str(error)
    return next((words for pattern, words in _REFUSALS if pattern.search(told)), None)


def hint(error: BaseException | None) -> str | None:
    """Say what to look at if `error`, in words that are not known here, came after a password."""
    if getattr(getattr(error, "pgconn", None), "used_password", False):
        return f"it came after the password: if it refuses the login, {_LOGIN}, and the name"
    return None


def is_unresolved(error: BaseException | None) -> bool:
    """Whether the host's name has no address, which may be so for a while only."""
    return "failed to resolve host" in str(error)


def is_worth_another_try(error: BaseException) -> bool:
    """Whether the same attempt may succeed within seconds."""
    return isinstance(error, psycopg.OperationalError) and advice(error) is None


def has_answered(error: BaseException) -> bool:
    """Whether it is in the words of a server, or of a pooler: one that lives."""
    return "FATAL:" in str(error) or "ERROR:" in str(error)


def first_line(error: BaseException | None) -> str:
    """Return what the driver said, without its further explanations."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
