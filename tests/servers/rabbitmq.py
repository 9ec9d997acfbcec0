"""RabbitMQ from the distribution's package, run without systemd, without root and without touching
the machine's own instance: every instance has its own folder, ports, cookie and port mapper."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from servers.ports import free_ports

# Not /usr/sbin/rabbitmq-server: that wrapper insists on being root or the user rabbitmq.
_SERVER = Path(os.environ.get("RABBITMQ_BINDIR", "/usr/lib/rabbitmq/bin")) / "rabbitmq-server"
_START_SECONDS = 120.0  # 4 s on an idle machine, 18 s seen on a busy one
_STOP_SECONDS = 20.0

_CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{port}
log.console = true
log.console.level = info
# The test machine's disk and memory are not what is tested; an alarm would only block publishers.
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 1GB
"""


class RabbitMQ:
    """One RabbitMQ node on 127.0.0.1, its data kept in `folder` from one start to the next.

    `start`, `stop` and `kill` may be called in any order and repeatedly; the ports stay the same
    for the life of the object. The processes end with the thread that started them, even when the
    test run is killed. Ready in 3 to 9 seconds; a clean stop takes up to 6.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.port, self._distribution_port, self._mapper_port = free_ports(3)
        self._mapper: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._more_config = ""

    @staticmethod
    def available() -> str | None:
        """None when an instance can be started here, else what is missing and how to get it."""
        for name, found, package in (
            ("rabbitmq-server", _SERVER.exists(), "rabbitmq-server"),
            ("epmd", shutil.which("epmd"), "erlang-base"),
            ("setpriv", shutil.which("setpriv"), "util-linux"),
        ):
            if not found:
                return f"{name} is not installed (apt-get install {package})"
        return None

    @staticmethod
    def version() -> str | None:
        """The version of the installed package, None when it is not installed."""
        # The scripts live in .../rabbitmq_server-3.10.8/sbin; asking rabbitmqctl takes seconds.
        match = re.search(r"rabbitmq_server-([\d.]+)", str(_SERVER.resolve()))
        return match.group(1) if match and _SERVER.exists() else None

    @property
    def url(self) -> str:
        """The address of the default virtual host, as the default user (loopback only)."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def pid(self) -> int | None:
        """The process id of the Erlang VM, None when it does not run."""
        return self._server.pid if self._running(self._server) and self._server else None

    @property
    def log(self) -> Path:
        """Everything that the server wrote, over all its starts."""
        return self.folder / "rabbitmq.log"

    def start(self) -> None:
        """Start the server and wait until it accepts connections; nothing to do if it runs.

        Raises RuntimeError with the end of the log if the server gives up or is not ready in time.
        """
        if self._running(self._server):
            return
        if missing := self.available():
            raise RuntimeError(missing)
        environment = self._prepare()
        deadline = time.monotonic() + _START_SECONDS
        if not self._running(self._mapper):
            # Started by us, in the foreground: the one that Erlang starts by itself becomes a
            # daemon, listens on every interface, and outlives all servers.
            command = ["epmd", "-address", "127.0.0.1", "-port", str(self._mapper_port)]
            self._mapper = self._spawn(command, environment)
            self._wait_for(self._mapper, self._mapper_port, b"", deadline)
        self._server = self._spawn([str(_SERVER)], environment)
        # The listener opens last, after recovery; greeting it with the protocol's header proves
        # that the broker behind it answers (with Connection.Start, a method frame: type 1).
        self._wait_for(self._server, self.port, b"AMQP\x00\x00\x09\x01", deadline)

    def stop(self) -> None:
        """Stop cleanly (SIGTERM); kill if that takes more than 20 seconds."""
        if self._server is not None and self._running(self._server):
            self._server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(_STOP_SECONDS)
        self.kill()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()
            self._mapper = None

    def kill(self) -> None:
        """SIGKILL the Erlang VM, as a power cut would; what was durable comes back at `start`."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nobody answers."""
        if self._server is not None:
            self._server.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self._server is not None:
            self._server.send_signal(signal.SIGCONT)

    def encrypt(self, certificate: bytes, key: bytes) -> int:
        """Have a TLS listener beside the other from the next start on; return its port."""
        (port,) = free_ports(1)
        for name, data in (("certificate.pem", certificate), ("key.pem", key)):
            (self.folder / name).write_bytes(data)
        self._more_config = (
            f"listeners.ssl.1 = 127.0.0.1:{port}\n"
            f"ssl_options.certfile = {self.folder / 'certificate.pem'}\n"
            f"ssl_options.keyfile = {self.folder / 'key.pem'}\n"
            "ssl_options.verify = verify_none\n"
        )
        return port

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _prepare(self) -> dict[str, str]:
        """Write the server's files and return the environment that points it to them."""
        home, data = self.folder / "home", self.folder / "data"
        for path in (self.folder, home, data):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        cookie = home / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text("telegramhybridtests")
            cookie.chmod(0o400)
        config = self.folder / "rabbitmq.conf"
        config.write_text(_CONFIG.format(port=self.port) + self._more_config)
        plugins = self.folder / "enabled_plugins"
        plugins.write_text("[].\n")
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the VM, so its pid is the VM's
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_NODENAME": "rabbit@localhost",  # an unresolvable host hangs silently
            "RABBITMQ_MNESIA_BASE": str(data),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # Two schedulers are plenty for tests and spare memory on machines with many cores.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 -kernel inet_dist_use_interface"
            " {127,0,0,1}",
        }

    def _spawn(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        # setpriv asks the kernel to send SIGKILL when the thread that forks dies, then execs.
        with self.log.open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "SIGKILL", *command],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for the test run alone
            )

    def _wait_for(
        self, process: subprocess.Popen[bytes], port: int, greeting: bytes, deadline: float
    ) -> None:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(self._report(f"ended with exit code {process.returncode}"))
            if _answers(port, greeting):
                return
            time.sleep(0.05)
        raise RuntimeError(self._report(f"was not ready within {_START_SECONDS:.0f} s"))

    def _report(self, event: str) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-80:]
        return "\n".join([f"RabbitMQ on 127.0.0.1:{self.port} {event}; end of {self.log}:", *lines])

    @staticmethod
    def _running(process: subprocess.Popen[bytes] | None) -> bool:
        return process is not None and process.poll() is None


def _answers(port: int, greeting: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            if not greeting:
                return True
            connection.sendall(greeting)
            return connection.recv(1) == b"\x01"
    except OSError:
        return False
