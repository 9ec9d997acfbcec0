"""Which way to the database: through the pooler, or past it; decided without I/O or clock.

The pooler serves unless it failed; from its first failure on the direct way serves, the pooler is
asked again every second, whether there is traffic or not, and from its first answer on it serves
again. Seconds are monotonic.
"""

from __future__ import annotations

from enum import Enum
from threading import Lock

#: Seconds from one look for a lost pooler to the next. A look takes milliseconds, or some seconds
#: at a pooler that is mute; it serves again within 5 seconds of its return.
PROBE_EVERY = 1.0
#: Seconds since its last answer to anybody for which a pooler counts as alive.
HEARD_WITHIN = 3.0
#: Seconds of silence, towards everybody, after which one asks a pooler whether it lives.
DOUBT_AFTER = 1.0


class Route(Enum):
    """A way to the database."""

    POOLER = "PgBouncer"
    DIRECT = "direct"


class Routes:
    """The ways of one engine, for all its threads."""

    def __init__(self, *, pooler: bool) -> None:
        self._lock = Lock()
        self._pooler = pooler
        self._trouble: str | None = None
        self._epoch = 0
        self._searching = False
        self._doubting = False
        self._doubt_at = 0.0
        self._heard_at = float("-inf")

    @property
    def serving(self) -> Route:
        """The way that the next connection tries first."""
        return Route.POOLER if self._pooler and self._trouble is None else Route.DIRECT

    @property
    def trouble(self) -> str | None:
        """Why the pooler does not serve; None if it does, or if there is none."""
        return self._trouble

    def carries(self, route: Route, epoch: int) -> bool:
        """Whether a connection made by this way, in this epoch, may go on."""
        return route is self.serving and (route is Route.DIRECT or epoch == self._epoch)

    def is_lost(self, epoch: int) -> bool:
        """Whether the pooler has fallen silent since this epoch."""
        return epoch != self._epoch

    @property
    def epoch(self) -> int:
        """Counts how often the pooler fell silent; what it carried before is lost."""
        return self._epoch

    def order(self) -> tuple[Route, ...]:
        """The ways to try for a new connection, the likeliest first."""
        if not self._pooler:
            return (Route.DIRECT,)
        other = Route.DIRECT if self.serving is Route.POOLER else Route.POOLER
        return (self.serving, other)

    def answered(self, route: Route) -> None:
        """A connection by this way works."""
        if route is Route.POOLER:
            self._trouble = None

    def heard(self, now: float) -> None:
        """The pooler has passed on an answer."""
        self._heard_at = now

    def is_busy(self, now: float) -> bool:
        """Whether a pooler that keeps one waiting has just answered another."""
        return now - self._heard_at < HEARD_WITHIN

    def failed(self, route: Route, reason: str) -> None:
        """A connection by this way could not be had."""
        if route is Route.POOLER:
            self._trouble = reason

    def silent(self, reason: str) -> None:
        """The pooler does not even take a login: whoever waits for its answer waits in vain."""
        with self._lock:
            self._epoch += 1
            self._doubting = False
            self._trouble = reason

    def claim_search(self) -> bool:
        """Whether the caller is to look for the lost pooler, again and again: one at a time.

        It goes on until the pooler serves or nobody needs it, and must report `search_ended`.
        """
        if self._trouble is None:
            return False
        with self._lock:
            if self._searching:
                return False
            self._searching = True
            return True

    def search_ended(self) -> None:
        """Nobody looks for the pooler any more."""
        with self._lock:
            self._searching = False

    def claim_doubt(self, now: float) -> bool:
        """Whether the caller, whose statement is slow, is to ask if the pooler lives at all.

        Also when it does not serve any more: that does not help who waits for its answer.
        It must report `alive` or `silent`.
        """
        with self._lock:
            quiet = now - self._heard_at >= DOUBT_AFTER
            if not quiet or self._doubting or now < self._doubt_at:
                return False
            self._doubting = True
            return True

    def alive(self, now: float) -> None:
        """The pooler takes logins: a slow statement is slow for other reasons."""
        with self._lock:
            self._doubting = False
            self._doubt_at = now + PROBE_EVERY
