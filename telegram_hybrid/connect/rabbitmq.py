"""RabbitMQ: addresses with several hosts, and a transport that waits for nothing without end."""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import amqp.transport
import kombu
from amqp.method_framing import frame_handler
from kombu.transport import pyamqp

#: Seconds that the broker may take to answer a request on an open connection.
REPLY_TIMEOUT = 15.0
#: Seconds that it may take to say goodbye: what it still holds of us, it drops by itself.
CLOSE_TIMEOUT = 2.0
#: Seconds between heartbeats; a connection without any for two intervals is dead.
HEARTBEAT = 30.0

#: Bytes that one read takes at most, unless a frame is larger.
_AHEAD = 8192

_PORTS = {"amqp": 5672, "pyamqp": 5672, "amqps": 5671}
_FILES = {"cacertfile": "ca_certs", "certfile": "certfile", "keyfile": "keyfile"}
_OPTIONS = {*_FILES, "verify", "server_name_indication", "heartbeat"}


def candidates(url: str) -> list[dict[str, Any]]:
    """Return kombu's arguments for each host of an address, in order.

    `amqp[s]://user:password@host:port,host:port/vhost`; options after the "?" are those of
    RabbitMQ's URI query parameters: heartbeat (seconds) and, for amqps, cacertfile, certfile,
    keyfile, verify (verify_peer, the default, or verify_none) and server_name_indication. Raises
    ValueError, the words of which hold no secret.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    if unknown := options.keys() - _OPTIONS:
        raise ValueError(f"unknown option {sorted(unknown)[0]!r}")
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    common = {
        "userid": unquote(user) or None,
        "password": unquote(password) or None,
        "virtual_host": unquote(parts.path[1:]) or "/",
        "heartbeat": _heartbeat(options.get("heartbeat", str(HEARTBEAT))),
        "transport": Transport,
    }
    places = [_host_and_port(host, parts) for host in hosts.split(",")]
    return [
        {**common, "hostname": host, "port": port, "ssl": _tls(parts.scheme, host, options)}
        for host, port in places
    ]


def _host_and_port(text: str, parts: SplitResult) -> tuple[str, int]:
    one = urlsplit(f"//{text}")
    return one.hostname or "localhost", one.port or _PORTS[parts.scheme]


def _heartbeat(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 65535:  # the protocol's 16 bits; 0 is none at all
        raise ValueError("heartbeat: expected 0 to 65535 seconds")
    return seconds


def _tls(scheme: str, host: str, options: dict[str, str]) -> dict[str, Any] | bool:
    if scheme != "amqps":
        return False
    files = {_FILES[name]: value for name, value in options.items() if name in _FILES}
    for name, path in files.items():
        if not Path(path).is_file():
            raise ValueError(f"{name}: no such file")
    verify = options.get("verify", "verify_peer")
    if verify == "verify_none":
        return {**files, "cert_reqs": ssl.CERT_NONE}
    if verify != "verify_peer":
        raise ValueError("verify: expected verify_peer or verify_none")
    name = options.get("server_name_indication", host)
    return {**files, "cert_reqs": ssl.CERT_REQUIRED, "server_hostname": name}


class _Wire:
    """Beside a transport of py-amqp: `connect_timeout` is for connecting, however it goes on.

    py-amqp grants it to each address of a name, to TLS and to each frame of the handshake anew.
    What is written `together` is one write.
    """

    sock: socket.socket
    connect_timeout: float
    give_up = float("inf")
    _held: bytearray | None = None
    _news: select.poll | None = None

    def connect(self) -> None:
        self.give_up = monotonic() + self.connect_timeout
        super().connect()  # type: ignore[misc]

    def left(self) -> float:
        """Seconds until connecting has to be done."""
        return max(0.001, self.give_up - monotonic())

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold what is written until the end of the block; an exception drops it."""
        held = self._held = bytearray()
        try:
            yield
        finally:
            self._held = None
        self.write(held)

    def has_news(self) -> bool:
        """Whether anything has arrived that was not taken in, or the connection has ended.

        To find that out by reading, which then times out, costs as much as to read a frame.
        """
        if self._news is None:
            self._news = select.poll()
            self._news.register(self.sock, select.POLLIN)
        return bool(self._read_buffer or self._news.poll(0))  # type: ignore[attr-defined]

    def write(self, data: Any) -> None:
        """Write, or hold; py-amqp reuses the memory that `data` shows."""
        if self._held is None:
            super().write(data)  # type: ignore[misc]
        else:
            self._held += data

    def _connect(self, host: str, port: int, timeout: float) -> None:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        super()._connect(host, port, timeout / len(addresses))  # type: ignore[misc]

    def _setup_transport(self) -> None:
        self.sock.settimeout(self.left())  # for TLS' handshake
        super()._setup_transport()  # type: ignore[misc]
        self.sock.settimeout(REPLY_TIMEOUT)


class _Plain(_Wire, amqp.transport.TCPTransport):  # type: ignore[misc]
    """Reads ahead: py-amqp asks the socket three times for each frame, and keeps what is more."""

    def _setup_transport(self) -> None:
        super()._setup_transport()
        self._quick_recv = self._receive

    def _receive(self, least: int) -> bytes:
        return self.sock.recv(max(least, _AHEAD))


class _Encrypted(_Wire, amqp.transport.SSLTransport):  # type: ignore[misc]
    def has_news(self) -> bool:
        """Also what is decrypted already."""
        return self.sock.pending() > 0 or super().has_news()  # type: ignore[attr-defined]


#: For text that is not UTF-8, times that are none, and tables too deep.
_UNREADABLE = (ValueError, OverflowError, RecursionError, struct.error)
_HEADER = 2


def _lenient(connection: Any, callback: Callable[..., object]) -> Callable[[Any], Any]:
    """py-amqp's reader of frames; the properties of a message that it cannot read are left out."""
    read = frame_handler(connection, callback)

    def on_frame(frame: tuple[int, int, bytes]) -> Any:
        kind, channel, content = frame
        try:
            return read(frame)
        except _UNREADABLE:
            if kind != _HEADER:
                raise
            # Class and size as they came, and flags that say: no properties.
            return read((kind, channel, bytes(content[:12]) + b"\0\0"))

    return on_frame


class _Text(bytes):
    """Bytes of which every part can be decoded."""

    def __getitem__(self, at: Any) -> Any:
        part = super().__getitem__(at)
        return _Text(part) if isinstance(part, bytes) else part

    def decode(self, *_: Any) -> str:
        return super().decode("utf-8", "backslashreplace")


class Connection(pyamqp.Connection):  # type: ignore[misc]
    """An AMQP connection whose every wait has an end, and that reads every message.

    py-amqp waits for ever for a reply to what it asks: declare, bind, close. Of messages that other
    clients may send, it raises the errors of Python's decoders.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options, frame_handler=_lenient)

    def Transport(  # noqa: N802
        self,
        host: str,
        connect_timeout: float,
        ssl: Any,
        *_timeouts: object,
        socket_settings: Any = None,
    ) -> Any:
        """Make the transport; py-amqp's hook, which names it so. The timeouts are ours."""
        options = {"connect_timeout": connect_timeout, "socket_settings": socket_settings}
        return _Encrypted(host, ssl=ssl, **options) if ssl else _Plain(host, **options)

    def blocking_read(self, timeout: float | None = None) -> Any:
        """As in py-amqp; a frame of the handshake gets what its predecessors have left."""
        return super().blocking_read(timeout if self._handshake_complete else self.transport.left())

    def on_inbound_method(self, channel: int, method: Any, arguments: bytes, content: Any) -> Any:
        """As in py-amqp; whatever somebody else may have written of a message is text."""
        arguments = arguments if content is None else _Text(arguments)
        return super().on_inbound_method(channel, method, arguments, content)

    def close(self, *arguments: Any, **options: Any) -> Any:
        """Say goodbye, but do not wait long for the answer."""
        if self._transport is not None and self._transport.sock is not None:
            self._transport.sock.settimeout(CLOSE_TIMEOUT)
        return super().close(*arguments, **options)


class Transport(pyamqp.Transport):  # type: ignore[misc]
    """kombu's transport, with our connections."""

    Connection = Connection


def connection(arguments: dict[str, Any], seconds: float) -> kombu.Connection:
    """Return a kombu connection, not yet connected, that takes at most `seconds` to connect."""
    return kombu.Connection(**arguments, connect_timeout=seconds)
