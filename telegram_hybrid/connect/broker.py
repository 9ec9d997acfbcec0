"""The broker: connections over kombu, and the one place that maps its errors to ours."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import amqp
import kombu
import redis
from kombu.exceptions import KombuError
from kombu.utils.url import parse_url

from telegram_hybrid.connect import kombu_redis, rabbitmq
from telegram_hybrid.errors import BrokerError, BrokerUnavailable, ConfigurationError

#: Seconds until connecting gives up, over all hosts.
DEADLINE = 5.0


def open_broker(url: str, *, deadline: float = DEADLINE) -> kombu.Connection:
    """Return a connected kombu connection; one thread may use it, and whoever gets it closes it.

    `amqp://` and `amqps://` speak to RabbitMQ, `amqp://host:port,host:port/vhost` to the first of
    several hosts that answers (`connect.rabbitmq` lists the options); `redis://`, `rediss://` and
    `redis+socket://` to Redis, through a transport that loses nothing to a killed consumer
    (`connect.kombu_redis`). Every host is tried once, all of them within `deadline` seconds, for
    however long a host is mute; the resolution of names takes what the system's resolver takes.
    Repeating is for the caller, who knows for how long.

    Raises `BrokerUnavailable`, `BrokerError` (refused: user, password, virtual host, certificate)
    or `ConfigurationError`, never with a secret in the message.
    """
    # A parser's own words may quote a password, so they are neither repeated nor chained: what
    # is no address is raised outside of every except block.
    with suppress(ValueError, TypeError, KombuError):
        return _first(_connections(url), monotonic() + deadline)
    raise ConfigurationError(
        "TELEGRAM_BROKER_URL: expected amqp://[user:password@]host:port/vhost, amqps://, "
        "redis://[:password@]host:port/db, rediss:// or redis+socket:///path?virtual_host=db"
    )


#: Makes a connection that takes at most so many seconds to connect.
_Maker = Callable[[float], kombu.Connection]


def _connections(url: str) -> list[_Maker]:
    scheme, _, rest = url.partition("://")
    if scheme in ("amqp", "pyamqp", "amqps"):
        return [partial(rabbitmq.connection, each) for each in rabbitmq.candidates(url)]
    if scheme == "redis+socket":
        parts: dict[str, Any] = {"hostname": f"socket://{rest}"}
    elif scheme in ("redis", "rediss"):
        parts = parse_url(url)
        if scheme == "rediss":
            parts.setdefault("ssl", {})
    else:
        raise ValueError("unknown scheme")
    parts["transport"] = kombu_redis.Transport
    return [lambda seconds: kombu.Connection(**parts, transport_options=_patience(seconds))]


def _patience(seconds: float) -> dict[str, float]:
    return {"socket_connect_timeout": seconds, "socket_timeout": seconds}


def _first(makers: list[_Maker], give_up: float) -> kombu.Connection:
    """Return the first connection that can be had; a host may not use up the others' time."""
    failures = []
    for left, make in zip(range(len(makers), 0, -1), makers, strict=True):
        seconds = max(0.1, (give_up - monotonic()) / left)
        try:
            return _connected(make(seconds))
        except BrokerUnavailable as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    raise BrokerUnavailable("; ".join(map(str, failures))) from failures[-1]


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
    words = _advice(error)
    said = lines[0] if lines else type(error).__name__
    return f"{place(connection)}: {said}{f'; check {words}' if words else ''}"


def _advice(error: BaseException) -> str | None:
    """Say what to look at, if that is known."""
    if _is_refusal(error):
        if isinstance(error, ssl.SSLError):
            return "cacertfile and the like in TELEGRAM_BROKER_URL, and the server's certificate"
        return (
            "user, password and virtual host: TELEGRAM_BROKER_URL, "
            "or TELEGRAM_RABBITMQ_USER, _PASSWORD and _VHOST"
        )
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return "whether the port of TELEGRAM_BROKER_URL speaks TLS, and cacertfile"
    if isinstance(error, socket.gaierror) or isinstance(error.__context__, socket.gaierror):
        return "the host: TELEGRAM_BROKER_URL, or TELEGRAM_RABBITMQ_HOST"
    return None


def _is_refusal(error: BaseException) -> bool:
    """Whether no repetition cures it."""
    return isinstance(
        error,
        (
            amqp.exceptions.AccessRefused,
            amqp.exceptions.NotAllowed,
            redis.exceptions.AuthenticationError,
            ssl.SSLCertVerificationError,
        ),
    )


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
