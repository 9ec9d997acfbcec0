"""The wire to RabbitMQ: writes that go together, and reads that take what is there."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from struct import pack
from time import monotonic
from typing import Any

import pytest
import trustme

from telegram_hybrid.connect.rabbitmq import _AHEAD, _Encrypted, _Plain


class Counting:
    """A socket that counts what is asked of it."""

    def __init__(self, real: socket.socket) -> None:
        self.real = real
        self.reads = 0
        self.writes: list[bytes] = []

    def recv(self, size: int) -> bytes:
        self.reads += 1
        return self.real.recv(size)

    def sendall(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.fixture
def ends() -> Iterator[tuple[Any, Counting, socket.socket]]:
    near, far = socket.socketpair()
    transport = _Plain("localhost:5672", connect_timeout=1.0)
    transport.sock = counting = Counting(near)
    transport.give_up = monotonic() + 1.0
    transport._setup_transport()
    transport.connected = True
    yield transport, counting, far
    near.close()
    far.close()


def frame(payload: bytes) -> bytes:
    return pack(f">BHI{len(payload)}sB", 1, 1, len(payload), payload, 0xCE)


def test_frames_that_are_there_take_one_read(ends: tuple[Any, Counting, socket.socket]) -> None:
    # Broken on purpose: py-amqp's own reads are nine for these.
    transport, counting, far = ends
    far.sendall(frame(b"one") + frame(b"two") + frame(b"three"))
    payloads = [bytes(transport.read_frame()[2]) for _ in range(3)]
    assert payloads == [b"one", b"two", b"three"]
    assert counting.reads == 1


def test_a_frame_that_comes_in_pieces_is_put_together(
    ends: tuple[Any, Counting, socket.socket],
) -> None:
    transport, _, far = ends
    large = frame(b"x" * (3 * _AHEAD))
    whole = frame(b"one") + large + frame(b"two")
    far.sendall(whole[:15])
    assert bytes(transport.read_frame()[2]) == b"one"
    with pytest.raises(TimeoutError), transport.having_timeout(0):
        transport.read_frame()
    far.sendall(whole[15:])
    assert bytes(transport.read_frame()[2]) == b"x" * (3 * _AHEAD)
    assert bytes(transport.read_frame()[2]) == b"two"


def test_what_is_written_together_is_one_write(ends: tuple[Any, Counting, socket.socket]) -> None:
    transport, counting, _ = ends
    memory = bytearray(b"one")
    with transport.together():
        transport.write(memoryview(memory))
        memory[:] = b"two"  # Broken on purpose: holding the views wrote "twotwo".
        transport.write(memoryview(memory))
        assert counting.writes == []
    transport.write(b"three")
    assert counting.writes == [b"onetwo", b"three"]


def test_an_exception_drops_what_was_held(ends: tuple[Any, Counting, socket.socket]) -> None:
    # Broken on purpose: writing it all the same sends events after the end of a lease.
    transport, counting, _ = ends
    with pytest.raises(LookupError), transport.together():
        transport.write(b"one")
        raise LookupError
    transport.write(b"two")
    assert counting.writes == [b"two"]


def test_there_is_news_as_long_as_a_frame_is_not_taken_in(
    ends: tuple[Any, Counting, socket.socket],
) -> None:
    """Broken on purpose: with the socket asked alone, the second frame, which was read ahead,
    was no news."""
    transport, counting, far = ends
    assert not transport.has_news()
    far.sendall(frame(b"one") + frame(b"two"))
    taken = []
    while transport.has_news():
        taken.append(bytes(transport.read_frame()[2]))
    assert taken == [b"one", b"two"]
    assert counting.reads == 1


def test_the_end_of_the_connection_is_news(ends: tuple[Any, Counting, socket.socket]) -> None:
    transport, _, far = ends
    far.close()
    assert transport.has_news()
    with pytest.raises(OSError, match="closed"):
        transport.read_frame()


def test_what_is_decrypted_already_is_news() -> None:
    # Broken on purpose: without `pending`, a second frame of one record was not heard of until
    # something else arrived.
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(theirs)
    authority.configure_trust(ours)
    theirs.num_tickets = 0  # those would be news, too
    near, far = socket.socketpair()
    with near, far, ThreadPoolExecutor(1) as threads:
        accepting = threads.submit(theirs.wrap_socket, far, server_side=True)
        with (
            ours.wrap_socket(near, server_hostname="localhost") as sock,
            accepting.result(5) as end,
        ):
            transport = _Encrypted("localhost:5671", connect_timeout=1.0)
            transport.sock, transport.connected, transport._quick_recv = sock, True, sock.read
            assert not transport.has_news()
            end.sendall(frame(b"one") + frame(b"two"))
            assert bytes(transport.read_frame()[2]) == b"one"
            assert transport.has_news()
            assert bytes(transport.read_frame()[2]) == b"two"
            assert not transport.has_news()
