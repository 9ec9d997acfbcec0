"""Gate: whether Redis is asked, and whether its hits are trusted; and the thread that mends that.

The thread runs only while something is wrong. It probes a Redis that the breaker has given up,
repeats what the ledger owes it, and ends when hits are trusted again.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Event, RLock, Thread
from time import monotonic

from telegram_hybrid.cache.breaker import SLOW, Breaker, BreakerState
from telegram_hybrid.cache.ledger import Ledger, Stale
from telegram_hybrid.model import ChannelWrite

_log = logging.getLogger("telegram_hybrid.cache")
#: Seconds between two attempts to repeat what is owed to a Redis that answers probes.
_AGAIN = 0.25

#: All there are, for a forked child: it has no threads, and its locks may be held for ever.
_gates: weakref.WeakSet[Gate] = weakref.WeakSet()


def _after_fork() -> None:
    for gate in list(_gates):
        gate._begin()


os.register_at_fork(after_in_child=_after_fork)


class Gate:
    """Thread-safe; reading `reachable`, `trusted` and `turn` takes no lock.

    `probe` asks Redis for anything and raises what it raises. `repay` repeats invalidations and
    returns whether all were applied. `on_open` is called when the breaker opens.
    """

    def __init__(
        self,
        probe: Callable[[], object],
        repay: Callable[[Stale], bool],
        on_open: Callable[[], object],
        *,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._probe = probe
        self._repay = repay
        self._on_open = on_open
        self._clock = clock
        self._breaker = breaker or Breaker()
        self._ledger = Ledger()
        self._heard_at = 0.0
        #: Redis may be asked.
        self.reachable = True
        #: What it answers may be believed.
        self.trusted = True
        #: Grows with every doubt. A reply to what was sent in an earlier turn may be another
        #: server's than the one that is, or will be, trusted.
        self.turn = 0
        self._thread: Thread | None
        self._begin()
        _gates.add(self)

    @property
    def state(self) -> BreakerState:
        """The breaker's."""
        return self._breaker.state

    def answered(self, seconds: float) -> None:
        """Redis replied, after `seconds`, even if it was to refuse something."""
        self._heard_at = self._clock()
        if seconds <= SLOW and self._breaker.is_clean:
            return
        with self._lock:
            self._breaker.answered(self._clock(), seconds)
            self._look()

    def failed(self, *, timeout: bool) -> None:
        """Redis did not reply."""
        with self._lock:
            self._breaker.failed(self._clock(), timeout=timeout)
            self._look()

    def applied(self, writes: Sequence[ChannelWrite], turn: int) -> bool:
        """An invalidation that was sent in `turn` was acknowledged; False if that is worthless."""
        with self._lock:
            if turn != self.turn:
                self.owe(writes)
                return False
            self._ledger.applied(self._clock(), writes)
            return True

    def owe(self, writes: Sequence[ChannelWrite]) -> None:
        """An invalidation did not reach Redis: no hit is trusted until it has been repeated."""
        with self._lock:
            self._ledger.owe(writes)
            self._look()

    def owe_whole(self, versions: Mapping[int, int]) -> None:
        """Of writes to these channels Redis may not have been told: {channel_id: version}."""
        with self._lock:
            self._ledger.owe_whole(versions)
            self._look()

    def moved(self, lost: float = 0.0) -> None:
        """Another server is the master, and lacks `lost` seconds. Returns at once."""
        with self._lock:
            self._ledger.moved(self._heard_at, lost)
            self.turn += 1
            self._look()

    def restarted(self) -> None:
        """The server was restarted. Returns at once."""
        with self._lock:
            self._ledger.restarted()
            self.turn += 1
            self._look()

    def mend(self) -> None:
        """See to it that the thread runs if it has to (after a fork it does not)."""
        if self._thread is None:
            with self._lock:
                self._look()

    def close(self) -> None:
        """End the thread; a later doubt starts it again."""
        with self._lock:
            thread = self._thread
            self._wake.set()
        if thread is not None:
            thread.join(2.0)
            self._thread = None

    def _begin(self) -> None:
        self._lock = RLock()
        self._wake = Event()
        self._thread = None

    def _look(self) -> None:
        """Draw the consequences of what has just happened; the lock is held."""
        was_reachable, was_trusted = self.reachable, self.trusted
        self.reachable = self._breaker.state is BreakerState.CLOSED
        self.trusted = (
            self.reachable and not self._ledger.is_owing and self._ledger.wait(self._clock()) == 0.0
        )
        self.turn += was_trusted and not self.trusted
        if not self.trusted and self._thread is None:
            self._wake = Event()
            thread = Thread(
                target=_mend,
                args=(weakref.ref(self), self._wake),
                name="telegram_hybrid gate",
                daemon=True,
            )
            # Where there are no more threads, whoever asks next tries again.
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread
        if was_reachable and not self.reachable:
            self._on_open()

    def _step(self, stopped: Event) -> float | None:
        """Mend what can be mended now; return the pause until the next step, None for no more."""
        if self._breaker.state is not BreakerState.CLOSED and not self._try():
            return self._pause(0.0)
        with self._lock:
            owing = self._ledger.is_owing
            debt = self._ledger.begin() if owing else Stale()
        applied = self._applied(debt)
        with self._lock:
            if owing:
                self._ledger.settle(self._clock(), applied=applied)
            if stopped.is_set():
                return None
            self._look()
            if self.trusted:
                self._thread = None
                return None
        return self._pause(0.0 if applied else _AGAIN)

    def _pause(self, least: float) -> float:
        with self._lock:
            now = self._clock()
            return max(least, self._breaker.wait(now), self._ledger.wait(now))

    def _try(self) -> bool:
        """Probe, once that is due; True if the breaker is closed then."""
        with self._lock:
            if self._breaker.wait(self._clock()) > 0:
                return False
            self._breaker.probe()
        began = self._clock()
        try:
            self._probe()
        except Exception as error:  # noqa: BLE001  (whatever it is, Redis is not well)
            _log.debug("probe of Redis failed: %s", error)
            seconds = None
        else:
            seconds = self._clock() - began
        with self._lock:
            now = self._clock()
            self._breaker.probed(now, seconds)
            closed = self._breaker.state is BreakerState.CLOSED
            if closed:
                # It may have been restarted with a file that lacks what it acknowledged last, and
                # other processes owe it something, too.
                self._ledger.moved(self._heard_at)
                self.turn += 1
                self.reachable = True
        return closed

    def _applied(self, debt: Stale) -> bool:
        if not debt:
            return True
        try:
            return self._repay(debt)
        except Exception as error:  # noqa: BLE001  (it is repeated)
            _log.debug("repeating invalidations failed: %s", error)
            return False


def _mend(reference: weakref.ref[Gate], stopped: Event) -> None:
    """Step for as long as anybody holds the gate."""
    pause: float | None = 0.0
    while pause is not None and not stopped.wait(pause):
        gate = reference()
        if gate is None:
            return
        pause = gate._step(stopped)
        del gate
