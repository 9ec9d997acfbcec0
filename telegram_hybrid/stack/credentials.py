"""Secrets: made once for a deployment, kept in one file, and hashed as each server wants them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

import attrs

from telegram_hybrid.errors import ConfigurationError

#: Holds every secret of a deployment in clear; the other files are written from it.
FILE = "secrets.env"
#: What a secret of ours and PostgreSQL's verifier of one look like, as regular expressions.
SHAPES = (r"\b[0-9a-f]{48}\b", r"SCRAM-SHA-256\$[\w$:+/=]+")
_HEADER = """\
# The secrets of this deployment, from which `stack write` writes every other file.
# For people: BROKER_ADMIN_PASSWORD opens RabbitMQ's management pages as telegram_admin.
"""
_ITERATIONS = 4096  # PostgreSQL's own default; a random secret needs no more


def _secret() -> str:
    # Hexadecimal, because no configuration language of the six gives these letters a meaning.
    return secrets.token_hex(24)


@attrs.frozen(kw_only=True)
class Secrets:
    """One password for each role in the deployment, 192 random bits unless given; never shown."""

    database_password: str = attrs.field(factory=_secret, repr=False)
    pooler_password: str = attrs.field(factory=_secret, repr=False)
    redis_password: str = attrs.field(factory=_secret, repr=False)
    sentinel_password: str = attrs.field(factory=_secret, repr=False)
    broker_password: str = attrs.field(factory=_secret, repr=False)
    broker_admin_password: str = attrs.field(factory=_secret, repr=False)

    @classmethod
    def read(cls, directory: Path) -> Secrets | None:
        """The secrets of a deployment that was written before, None if there are none.

        Raises `ConfigurationError` naming the line if the file is not complete.
        """
        path = directory / FILE
        if not path.exists():
            return None
        found = {}
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not line or line.startswith("#"):
                continue
            name, separator, value = line.partition("=")
            if not (separator and value.isalnum() and name.lower() in attrs.fields_dict(cls)):
                raise ConfigurationError(f"{path}: line {number}: not NAME=secret of a known name")
            found[name.lower()] = value
        if missing := attrs.fields_dict(cls).keys() - found.keys():
            raise ConfigurationError(f"{path}: {', '.join(sorted(missing)).upper()} is missing")
        return cls(**found)

    def text(self) -> str:
        """The file that `read` reads."""
        lines = (f"{name.upper()}={value}\n" for name, value in self.values().items())
        return _HEADER + "".join(lines)

    def values(self) -> Mapping[str, str]:
        """Every secret by name."""
        return attrs.asdict(self)


def scram_verifier(password: str) -> str:
    """PostgreSQL's SCRAM-SHA-256 verifier (RFC 5802, 5803) of an ASCII password.

    The salt is drawn from the password, so that a deployment written twice stays the same.
    """
    salt = _salt(password, b"postgres", 16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${_ITERATIONS}:{_text(salt)}${_text(stored)}:{_text(server)}"


def rabbitmq_hash(password: str) -> str:
    """RabbitMQ's rabbit_password_hashing_sha256: base64 of a 4-byte salt and the salted hash."""
    salt = _salt(password, b"rabbitmq", 4)
    return _text(salt + hashlib.sha256(salt + password.encode()).digest())


def _salt(password: str, purpose: bytes, length: int) -> bytes:
    return hmac.digest(password.encode(), b"salt for " + purpose, "sha256")[:length]


def _text(value: bytes) -> str:
    return b64encode(value).decode()
