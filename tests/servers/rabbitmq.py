"""RabbitMQ on the deployment's files, without touching the machine's own instance: with a port
mapper, a cookie and a home of its own."""

import os
import re
import subprocess
from pathlib import Path

from servers.daemon import Daemon, answers, as_user
from servers.ports import free_ports

# Not /usr/sbin/rabbitmq-server: that wrapper insists on being root or the user rabbitmq.
SERVER = Path(os.environ.get("RABBITMQ_BINDIR", "/usr/lib/rabbitmq/bin")) / "rabbitmq-server"


def version() -> str | None:
    """The version of the installed package, None when it is not installed."""
    # The scripts live in .../rabbitmq_server-3.10.8/sbin; asking rabbitmqctl takes seconds.
    match = re.search(r"rabbitmq_server-([\d.]+)", str(SERVER.resolve()))
    return match.group(1) if match and SERVER.exists() else None


class RabbitMQ(Daemon):
    """One node, its data kept in `folder` from one start to the next; `url` is the application's.

    What was durable survives `kill` (SIGKILL of the Erlang VM, as a power cut would).
    """

    def __init__(self, folder: Path, files: Path, port: int, url: str, user: str | None) -> None:
        self.port, self.url = port, url
        distribution_port, mapper_port = free_ports(2)
        home, data = folder / "home", folder / "data"
        cookie = home / ".erlang.cookie"
        for path in (folder, home, data):
            path.mkdir(mode=0o700)
        cookie.write_text("telegramhybridtests")
        cookie.chmod(0o400)
        environment = {
            "HOME": str(home),
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the VM, so its pid is the VM's
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(files / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(files / "enabled_plugins"),
            "RABBITMQ_NODENAME": "rabbit@localhost",  # an unresolvable host hangs silently
            "RABBITMQ_MNESIA_BASE": str(data),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "ERL_EPMD_PORT": str(mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # Two schedulers are plenty for tests and spare memory on machines with many cores.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 -kernel inet_dist_use_interface"
            " {127,0,0,1}",
        }
        # Started by us, in the foreground: the one that Erlang starts by itself becomes a daemon,
        # listens on every interface, and outlives all servers.
        self.mapper = Daemon(
            "epmd",
            ["epmd", "-address", "127.0.0.1", "-port", str(mapper_port)],
            folder,
            lambda: answers(mapper_port),
            user=user,
        )
        # The listener opens last, after recovery; greeting it with the protocol's header proves
        # that the broker behind it answers (with Connection.Start, a method frame: type 1).
        super().__init__(
            "rabbitmq",
            [str(SERVER)],
            folder,
            lambda: answers(port, b"AMQP\x00\x00\x09\x01", b"\x01"),
            user=user,
            environment=environment,
        )

    def spawn(self) -> None:
        self.mapper.start()
        super().spawn()

    def control(self, *words: str) -> str:
        """Have rabbitmqctl do this to the node; its answer. Takes seconds."""
        done = subprocess.run(
            [*as_user(self.user), str(SERVER.with_name("rabbitmqctl")), "--quiet", *words],
            cwd=self.folder,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
            | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
