"""Sentinels and nodes that speak TLS, each with a certificate and a password of its own."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from servers.ports import free_ports
from servers.redis_ha import MASTER_NAME, Node
from servers.stack import NativeStack

from telegram_hybrid.connect.redis import Misconfigured, directory_of, open_redis

TLS = Path(__file__).parents[2] / "servers" / "tls"
NODES = f"tls=true&ssl_ca_certs={TLS / 'valid.pem'}"
SENTINELS = f"sentinel_tls=true&sentinel_ssl_ca_certs={TLS / 'valid.pem'}"
#: Characters that mean something in a URL.
PASSWORD, QUOTED = "hunter2@/:?#%+&", "hunter2%40%2F%3A%3F%23%25%2B%26"

Start = Callable[[str, str], str]


def tls(stack: NativeStack, node: Node, certificate: str, password: str) -> int:
    """Add TLS and another password to what was written for a server; its port for TLS."""
    (port,) = free_ports(1)
    for name in (certificate, "valid.pem", "key.pem"):  # where the server's user may read it
        shutil.copy(TLS / name, node.folder)
    stack.add(
        str(node.config.relative_to(stack.folder)),
        f"tls-port {port}",
        f"tls-cert-file {node.folder / certificate}",
        f"tls-key-file {node.folder / 'key.pem'}",
        f"tls-ca-cert-file {node.folder / 'valid.pem'}",
        "tls-replication yes",
        "tls-auth-clients no",
        f'requirepass "{password}"',
    )
    node.password = password  # of the port without TLS, which tells us that it is up
    return port


@pytest.fixture
def start(own_stack: NativeStack) -> Start:
    """Starts a master and one sentinel with these certificates; the sentinel's host and port."""

    def run(node_certificate: str, sentinel_certificate: str) -> str:
        node, sentinel = own_stack.redis.nodes[0], own_stack.redis.sentinels[0]
        port = tls(own_stack, node, node_certificate, PASSWORD)
        sentinel_port = tls(own_stack, sentinel, sentinel_certificate, PASSWORD + "3")
        file, monitor = "sentinel-1/sentinel.conf", f"sentinel monitor {MASTER_NAME}"
        own_stack.replace(
            file, f"{monitor} {node.address} 2".replace(":", " "), f"{monitor} localhost {port} 1"
        )
        own_stack.add(file, f'sentinel auth-pass {MASTER_NAME} "{PASSWORD}"')
        own_stack.start(node, sentinel)
        run.node = f"localhost:{port}"
        return f"localhost:{sentinel_port}"

    return run


def url(sentinel: str, options: str) -> str:
    secret = f"sentinel_password={QUOTED}3"
    return f"redis+sentinel://:{QUOTED}@{sentinel}/{MASTER_NAME}/0?{secret}&{options}"


def refusal(address: str) -> str:
    began = time.monotonic()
    with open_redis(address) as client, pytest.raises(Misconfigured) as raised:
        client.get("a")
    assert time.monotonic() - began < 2.0  # at once, although there is a deadline
    print(f"\n{raised.value}")
    assert "hunter" not in str(raised.value)
    return str(raised.value)


def test_both_speak_tls_and_passwords_hold_any_character(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sentinel = start("valid.pem", "valid.pem")
    with open_redis(url(sentinel, f"{NODES}&{SENTINELS}")) as client:
        assert client.set("a", "1")
        view = directory_of(client).view()
        assert (view.via, str(view.master)) == ("sentinel", start.node)
    assert "hunter" not in caplog.text


def test_an_expired_certificate_of_the_sentinels(start: Start) -> None:
    sentinel = start("valid.pem", "expired.pem")
    options = f"{NODES}&sentinel_tls=true&sentinel_ssl_ca_certs={TLS / 'expired.pem'}"
    told = refusal(url(sentinel, options))
    assert sentinel in told
    assert "certificate has expired" in told
    assert "_SENTINEL_TLS/CA" in told
    assert "TELEGRAM_REDIS_CA" not in told  # that is the nodes'


def test_an_expired_certificate_of_the_nodes(start: Start) -> None:
    sentinel = start("expired.pem", "valid.pem")
    told = refusal(url(sentinel, f"tls=true&ssl_ca_certs={TLS / 'expired.pem'}&{SENTINELS}"))
    assert start.node in told
    assert "certificate has expired" in told
    assert "TELEGRAM_REDIS_CA" in told
    assert "SENTINEL" not in told


def test_an_unknown_authority_of_the_sentinels(start: Start) -> None:
    sentinel = start("valid.pem", "valid.pem")
    told = refusal(url(sentinel, f"{NODES}&sentinel_tls=true"))
    assert sentinel in told
    assert "certificate was refused" in told
    assert "_SENTINEL_TLS/CA" in told


@pytest.mark.parametrize("whose", ["the nodes", "the sentinels"])
def test_a_file_of_authorities_that_is_not_there(start: Start, whose: str) -> None:
    # Seen to fail: "No such file or directory" of which file nobody knew, after five seconds.
    sentinel = start("valid.pem", "valid.pem")
    good, prefix = f"{NODES}&{SENTINELS}", "" if whose == "the nodes" else "sentinel_"
    name = f"{prefix}ssl_ca_certs="
    bad = re.sub(rf"(?<=&){name}[^&]*", f"{name}/nowhere/ca.pem", good)
    assert bad != good
    told = refusal(url(sentinel, bad))
    assert "ssl_ca_certs=/nowhere/ca.pem cannot be read" in told
    assert (start.node if whose == "the nodes" else sentinel) in told
    assert ("TELEGRAM_REDIS_CA" if whose == "the nodes" else "_SENTINEL_TLS/CA") in told


def test_a_server_that_dies_amid_the_handshake_is_no_wrong_setting(
    own_stack: NativeStack,
) -> None:
    # Seen to fail while every error of TLS was taken for a wrong setting: raised at once.
    node = own_stack.redis.nodes[0]
    port = tls(own_stack, node, "valid.pem", PASSWORD)
    dying = socket.create_server(("127.0.0.1", port))
    dying.settimeout(3.0)
    cut: list[socket.socket] = []

    def cut_off() -> None:
        with dying, contextlib.suppress(TimeoutError):
            while len(cut) < 5:
                connection, _ = dying.accept()
                connection.recv(65536)
                connection.close()
                cut.append(connection)

    thread = threading.Thread(target=cut_off)
    thread.start()
    address = f"rediss://:{QUOTED}@localhost:{port}/0?ssl_ca_certs={TLS / 'valid.pem'}"
    with open_redis(address) as client, ThreadPoolExecutor() as pool:
        answer = pool.submit(client.set, "a", "1")
        thread.join()
        node.start()
        assert answer.result()
