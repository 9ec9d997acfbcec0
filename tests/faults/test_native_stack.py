"""The deployment as tests run it: it is the written one, it boots in time, and nothing is left."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import kombu
import pytest
from servers import stack as module
from servers.daemon import alive, answers
from servers.rabbitmq import RabbitMQ
from servers.stack import NativeStack
from stand import until

from telegram_hybrid.stack import FILES, Plan
from telegram_hybrid.stack.credentials import Secrets
from telegram_hybrid.stack.writing import rendered

pytestmark = pytest.mark.faults

#: Everything in which the files for native servers differ from those for containers, besides
#: paths, ports and hosts: the pattern of a line, and why.
DIFFERENT = {
    r"shared_preload_libraries = ": "TimescaleDB is in the container's image only",
    r"(listen_addresses|listen_addr|bind|listeners\.tcp\.1|management\.tcp\.ip)( =)? ": (
        "in the containers' private network servers listen on every address"
    ),
    r"TELEGRAM_REDIS_ADDRESS_MAP=": "on this machine nothing has to be translated",
}


def test_only_paths_ports_and_hosts_differ_from_the_containers_files(own_stack: NativeStack):
    # Seen to fail with "maxmemory 64mb" for native servers in Plan.redis_values, and with a
    # DIFFERENT that says nothing.
    secrets = Secrets.read(own_stack.folder)
    containers = rendered(own_stack.folder, Plan(), secrets)
    for name in FILES[1:]:
        native = alike((own_stack.folder / name).read_text(), own_stack)
        assert native == alike(containers[name], own_stack), name


def alike(text: str, stack: NativeStack) -> list[str]:
    """The lines of a file with every path, port and host replaced by what it stands for."""
    for listener, port in [*module.PORTS.items(), *stack.ports.items()]:
        text = re.sub(rf"\b{port}\b", listener, text)
    folders = [rf"{stack.folder}/data/[a-z0-9-]+", "/var/lib/postgresql/data", "/data"]
    folders += [rf"{stack.folder}/(postgres|pgbouncer|rabbitmq)\b", "/etc/stack"]
    folders += [rf"{stack.folder}/run", "/var/run/postgresql"]
    text = re.sub(rf"({'|'.join(folders)})(?=[/'\s]|$)", "PATH", text)
    text = re.sub(r"\b(127\.0\.0\.1|timescaledb(?= port)|redis-(master|replica))\b", "HOST", text)
    text = re.sub(r"(?<=announce-ip )sentinel-\d", "HOST", text)
    return [line for line in text.splitlines() if not re.match("|".join(DIFFERENT), line)]


def test_all_eight_are_ready_in_time_and_leave_nothing_behind(stack: NativeStack):
    """About 8 to 12 s on two idle cores, most of it RabbitMQ's; the bound is for busy machines.

    Beside the worker's own copy, which goes on. Seen to fail without the mapper in `close`: epmd
    lived on.
    """
    stack.start(stack.rabbitmq)
    began = time.monotonic()
    with NativeStack() as another:
        another.start()
        took = time.monotonic() - began
        assert not set(stack.ports.values()) & set(another.ports.values())
        pids = processes_of(another.folder)
        assert len(pids) >= 9  # with epmd
        began = time.monotonic()
    gone = time.monotonic() - began
    print(f"\nready in {took:.1f} s, {len(pids)} processes gone in {gone:.2f} s")
    assert took < 60
    assert processes_of(another.folder) == set()
    assert not another.folder.exists()
    assert [port for port in another.ports.values() if answers(port)] == []
    assert stack.rabbitmq.running


def processes_of(folder: Path) -> set[int]:
    """The processes that work in a folder, or were started with it in their command."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            seen = (entry / "cmdline").read_bytes() + os.fsencode(os.readlink(entry / "cwd"))
        except OSError:  # it has ended, or is nobody's whom we may ask
            continue
        if os.fsencode(folder) in seen and alive(int(entry.name)):
            found.add(int(entry.name))
    return found


def test_a_killed_test_run_leaves_no_process_behind():
    # Seen to fail without setpriv --pdeathsig: every process lived on.
    if missing := NativeStack.missing():
        pytest.skip(missing)
    source = (
        "import time\n"
        "from servers.stack import NativeStack\n"
        "servers = NativeStack()\n"
        "servers.start()\n"
        "print(servers.folder, flush=True)\n"
        "time.sleep(600)\n"
    )
    tests = str(Path(module.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        folder = Path(run.stdout.readline().strip())
        running = processes_of(folder)
        run.send_signal(signal.SIGKILL)
    try:
        assert len(running) >= 9
        until(lambda: not processes_of(folder))
    finally:
        for pid in processes_of(folder):
            os.kill(pid, signal.SIGKILL)
        module.shutil.rmtree(folder)


def test_start_and_stop_may_be_repeated(own_stack: NativeStack):
    server = own_stack.redis.nodes[0]
    server.stop()
    server.start()
    pid = server.pid
    server.start()
    assert server.pid == pid
    server.stop()
    server.stop()
    assert server.pid is None


def test_a_server_that_gives_up_shows_the_end_of_its_log(own_stack: NativeStack):
    own_stack.add("rabbitmq/rabbitmq.conf", "no.such.key = 1")
    with pytest.raises(RuntimeError, match=r"(?s)ended with exit code.*no\.such\.key"):
        own_stack.start(own_stack.rabbitmq)


def test_a_confirmed_message_survives_sigkill_and_restart(rabbitmq: RabbitMQ):
    # Seen to fail with delivery_mode=1 on a classic queue: get() returned None.
    exchange = kombu.Exchange("telegram.kept", "topic")
    arguments = {"x-queue-type": "quorum"}
    queue = kombu.Queue("telegram.kept", exchange, "#", queue_arguments=arguments)
    confirmed = {"confirm_publish": True}
    with kombu.Connection(rabbitmq.url, transport_options=confirmed) as connection:
        channel = connection.channel()
        queue(channel).declare()
        # A quorum queue that is killed within about 3 s of its declaration comes back empty.
        time.sleep(4)
        connection.Producer(channel).publish(
            {"text": "still here"}, exchange=exchange, routing_key="any", timeout=10
        )
    pid = rabbitmq.pid
    assert pid is not None
    rabbitmq.kill()
    assert rabbitmq.pid is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", rabbitmq.port), timeout=1)
    rabbitmq.start()
    assert rabbitmq.pid not in (None, pid)
    with kombu.Connection(rabbitmq.url) as connection, connection.channel() as channel:
        found = []
        until(lambda: found.extend(filter(None, [queue(channel).get()])) or found)
        assert found[0].payload == {"text": "still here"}
        found[0].ack()
        queue(channel).delete()
