"""The test server itself: what the fault tests of delivery rely on must be true of it."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import kombu
import pytest
from servers import rabbitmq as module
from servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.faults

QUEUE = kombu.Queue(
    "kept", kombu.Exchange("kept", "topic"), "#", queue_arguments={"x-queue-type": "quorum"}
)


def connect(server: RabbitMQ) -> kombu.Connection:
    return kombu.Connection(server.url, transport_options={"confirm_publish": True})


def test_a_confirmed_message_survives_sigkill_and_restart(own_rabbitmq: RabbitMQ) -> None:
    # Seen to fail with delivery_mode=1 on a classic queue: get() returned None.
    with connect(own_rabbitmq) as connection, connection.channel() as channel:
        QUEUE(channel).declare()
        # A quorum queue that is killed within about 3 s of its declaration comes back empty.
        time.sleep(4)
        connection.Producer(channel).publish(
            {"text": "still here"}, exchange="kept", routing_key="any", delivery_mode=2, timeout=10
        )
    url, pid = own_rabbitmq.url, own_rabbitmq.pid
    assert pid is not None

    own_rabbitmq.kill()
    assert own_rabbitmq.pid is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", own_rabbitmq.port), timeout=1)

    own_rabbitmq.start()
    assert own_rabbitmq.url == url
    assert own_rabbitmq.pid not in (None, pid)
    with connect(own_rabbitmq) as connection, connection.channel() as channel:
        deadline = time.monotonic() + 20
        message = None
        while message is None and time.monotonic() < deadline:  # its leader is elected first
            message = QUEUE(channel).get()
            time.sleep(0.1)
        assert message is not None
        assert message.payload == {"text": "still here"}
        message.ack()


def test_two_instances_run_side_by_side_and_share_nothing(
    rabbitmq: RabbitMQ, own_rabbitmq: RabbitMQ
) -> None:
    assert rabbitmq.port != own_rabbitmq.port
    with connect(rabbitmq) as one, connect(own_rabbitmq) as other:
        name = "only-in-one"
        one.SimpleQueue(name).put("a", timeout=10)
        with pytest.raises(other.channel_errors, match="NOT_FOUND"):
            other.default_channel.queue_declare(name, passive=True)
        one.default_channel.queue_delete(name)


def test_start_and_stop_may_be_repeated(tmp_path: Path) -> None:
    if missing := RabbitMQ.available():
        pytest.skip(missing)
    server = RabbitMQ(tmp_path / "server")
    server.stop()
    server.start()
    pid = server.pid
    server.start()
    assert server.pid == pid
    server.stop()
    server.stop()
    assert server.pid is None


def test_a_server_that_gives_up_shows_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing := RabbitMQ.available():
        pytest.skip(missing)
    monkeypatch.setattr(module, "_CONFIG", "no.such.key = 1\nlisteners.tcp.1 = 127.0.0.1:{port}\n")
    with pytest.raises(RuntimeError, match=r"(?s)ended with exit code.*no\.such\.key"):
        RabbitMQ(tmp_path / "server").__enter__()


def test_a_killed_test_run_leaves_no_server_behind(tmp_path: Path) -> None:
    # Seen to fail without setpriv --pdeathsig: both processes lived on.
    if missing := RabbitMQ.available():
        pytest.skip(missing)
    source = (
        "import sys, pathlib, time\n"
        "from servers.rabbitmq import RabbitMQ\n"
        "server = RabbitMQ(pathlib.Path(sys.argv[1]))\n"
        "server.start()\n"
        "print(server.pid, server._mapper.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    tests = str(Path(module.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", source, str(tmp_path / "server")],
        env={**os.environ, "PYTHONPATH": tests},
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        pids = [int(pid) for pid in run.stdout.readline().split()]
        run.send_signal(signal.SIGKILL)
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in pids if alive(pid)] == []


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # an orphan's new parent may be slow to collect it
