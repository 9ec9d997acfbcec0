"""Backoff: how long to wait before the next try; pure."""

from __future__ import annotations

import attrs


@attrs.frozen(slots=True, kw_only=True)
class Backoff:
    """Doubling delays in seconds: `first`, twice that, and so on up to `most`.

    A random share of up to `jitter` of each delay is taken off, so that what failed together
    does not come back together ("equal jitter", AWS Architecture Blog, March 2015).
    """

    first: float = 0.1
    most: float = 5.0
    jitter: float = 0.5

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds to wait after the `attempt`-th failure in a row (1, 2, ..).

        `chance` is a random number from 0 to 1.
        """
        whole = min(self.most, self.first * 2.0 ** min(attempt - 1, 60))
        return whole * (1.0 - self.jitter * chance)


#: For a lost server: back within 5 seconds of its return.
RECONNECT = Backoff(first=0.1, most=5.0)
#: For an event that the broker does not take.
REPUBLISH = Backoff(first=0.5, most=60.0)
#: For an event that the handler failed on.
REHANDLE = Backoff(first=0.2, most=30.0)
