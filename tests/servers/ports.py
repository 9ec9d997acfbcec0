"""Free ports on the loopback interface that no outgoing connection can take meanwhile."""

import random
import socket


def free_ports(count: int) -> list[int]:
    """`count` different free ports on 127.0.0.1, in 10000..32767.

    They lie below Linux's ephemeral range on purpose: a port from inside it may be drawn by any
    outgoing connection while the server is down, and a client that keeps knocking at such a port
    on its own host can end up connected to itself.
    """
    found: list[int] = []
    for port in random.sample(range(10_000, 32_768), 2_000):
        with socket.socket() as probe:
            # What servers do, so that the TIME_WAIT of an earlier server does not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"found {len(found)} of {count} free ports on 127.0.0.1")
