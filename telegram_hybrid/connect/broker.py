"""The broker: connections over kombu, and the one place that maps its errors to ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import amqp
import kombu
import redis
from kombu.exceptions import KombuError
from kombu.utils.url import parse_url

from telegram_hybrid.connect import kombu_redis
from telegram_hybrid.errors import BrokerError, BrokerUnavailable, ConfigurationError

#: Seconds until connecting gives up.
CONNECT_TIMEOUT = 5.0
#: Seconds between heartbeats on AMQP; a connection without any for two intervals is dead.
HEARTBEAT = 30.0


def open_broker(url: str) -> kombu.Connection:
    """Return a connected kombu connection; one thread may use it, and whoever gets it closes it.

    `amqp://` and `amqps://` speak to RabbitMQ; `redis://`, `rediss://` and `redis+socket://` to
    Redis, through a transport that loses nothing to a killed consumer (`connect.kombu_redis`).
    It connects once: repeating is for the caller, who knows for how long. Raises
    `BrokerUnavailable`, `BrokerError` (refused: user, password, virtual host) or
    `ConfigurationError`, never with a secret in the message.
    """
    # A parser's own words may quote a password, so they are neither repeated nor chained: what
    # is no address is raised outside of every except block.
    with suppress(ValueError, TypeError, KombuError):
        return _connected(_connection(url))
    raise ConfigurationError(
        "TELEGRAM_BROKER_URL: expected amqp://[user:password@]host:port/vhost, amqps://, "
        "redis://[:password@]host:port/db, rediss:// or redis+socket:///path?virtual_host=db"
    )


def _connection(url: str) -> kombu.Connection:
    scheme, _, rest = url.partition("://")
    if scheme in ("amqp", "pyamqp"):
        # "amqp" alone would take librabbitmq where that is installed.
        url = f"pyamqp://{rest}"
    if scheme in ("amqp", "pyamqp", "amqps"):
        return kombu.Connection(url, connect_timeout=CONNECT_TIMEOUT, heartbeat=HEARTBEAT)
    if scheme == "redis+socket":
        return kombu.Connection(f"socket://{rest}", transport=kombu_redis.Transport)
    if scheme in ("redis", "rediss"):
        parts = parse_url(url)
        if scheme == "rediss":
            parts.setdefault("ssl", {})
        return kombu.Connection(**{**parts, "transport": kombu_redis.Transport})
    raise ValueError("unknown scheme")


def _connected(connection: kombu.Connection) -> kombu.Connection:
    try:
        with translated_errors(connection):
            connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
    except BaseException:
        close_quietly(connection)
        raise
    return connection


def is_amqp(connection: kombu.Connection) -> bool:
    """Whether a real AMQP broker is behind it, with confirms and queue arguments."""
    return bool(connection.transport.driver_type == "amqp")


@contextmanager
def translated_errors(connection: kombu.Connection) -> Iterator[None]:
    """Raise our errors for kombu's and the drivers', naming the server, never the password."""
    try:
        yield
    except connection.channel_errors as error:
        raise BrokerError(_told(connection, error)) from error
    except (*connection.connection_errors, KombuError, OSError) as error:
        told = _told(connection, error)
        raise (BrokerError if _is_refusal(error) else BrokerUnavailable)(told) from error


def _told(connection: kombu.Connection, error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    advice = "; check user, password and virtual host" if _is_refusal(error) else ""
    return f"{place(connection)}: {lines[0] if lines else type(error).__name__}{advice}"


def _is_refusal(error: BaseException) -> bool:
    if isinstance(error, (amqp.exceptions.AccessRefused, amqp.exceptions.NotAllowed)):
        return True
    return isinstance(error, redis.exceptions.AuthenticationError)


def place(connection: kombu.Connection) -> str:
    """Say where the broker is, without user or password."""
    host = str(connection.hostname or "localhost")
    if "://" in host:
        return f"broker at {urlsplit(host).path}"
    return f"broker at {host}{f':{connection.port}' if connection.port else ''}"


def close_quietly(connection: kombu.Connection) -> None:
    """Close, also when the server is gone: what it still held of us, it drops by itself."""
    try:
        connection.release()
    except (*connection.connection_errors, *connection.channel_errors, KombuError, OSError):
        connection.collect()
