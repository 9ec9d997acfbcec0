"""Floor: from which id on a relay has to look at a shard, so that it misses nothing; pure.

Ids are drawn before the commit, so an id may turn up late, below others that were read (a cursor
`id > last` would skip it). It belongs to another channel than those, because a writer holds its
channel's lock from before it draws the id until its commit. A look from the floor finds it, and
walks no more than it has to over what was deleted and not vacuumed, as while some session holds a
snapshot.

An id is passed for good when all at or below it were found or will never be. After some look, in
which `seen` was the highest id, a transaction of the relay's own, a deletion, gets the number D.
Whoever drew an id up to `seen` had a lower number than D before that (`outbox.locks` sees to it).
So when a later look says that all below D have ended, it shows all of those ids that there will
ever be.
"""

from __future__ import annotations

import math

import attrs


@attrs.define(slots=True)
class Floor:
    """One shard's floor: a look has to find the ids above `floor`."""

    floor: int = 0
    _seen: int = 0
    _mark: tuple[int, int] | None = None

    def looked(self, last: int | None, *, full: bool, frozen: int | None, ended: int) -> None:
        """Note a look from the floor.

        `last` is the highest id that it found (None: none); `full`, that there may be more above
        it; `frozen`, the lowest id that it left out, because its channel waits; `ended`, that all
        transactions below this number had ended before it.
        """
        self._seen = max(self._seen, last or 0)
        if self._mark is None or self._mark[1] > ended:
            return
        complete = last if full and last is not None else math.inf
        if frozen is not None:
            complete = min(complete, frozen - 1)
        self.floor = max(self.floor, int(min(self._mark[0], complete)))
        self._mark = None

    def deleted(self, number: int) -> None:
        """Note that the relay began the transaction of this number after the last look."""
        if self._mark is None and self._seen > self.floor:
            self._mark = (self._seen, number)

    def kept(self, lowest: int | None) -> int:
        """The floor for whoever knows nothing of what was found: `lowest` is the first id of it
        that may still be there (None: none is)."""
        return self.floor if lowest is None else min(self.floor, lowest - 1)

    def lower(self, lowest: int) -> None:
        """Have the ids from `lowest` on found again."""
        self.floor = min(self.floor, lowest - 1)
