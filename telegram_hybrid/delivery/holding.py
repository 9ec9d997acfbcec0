"""Holding: the shards that a relay has, for how long, and from where it looks through them."""

from __future__ import annotations

from collections.abc import Callable, Set
from time import monotonic

import attrs

from telegram_hybrid.connect.postgres.line import Line
from telegram_hybrid.delivery.pipeline import Pipeline
from telegram_hybrid.delivery.shards import Shards
from telegram_hybrid.delivery.worker import log
from telegram_hybrid.errors import ServiceError
from telegram_hybrid.outbox import leases
from telegram_hybrid.outbox.leases import Lease

#: Share of a lease's time that is used: the rest is for those who wait for its end, and for clocks
#: that do not run alike.
LEASE_USED = 0.9
#: Seconds between two renewals, at most.
RENEW = 1.5
#: Seconds after the end of another relay's lease at which its shards are taken.
TAKE_AFTER = 0.005


class Holding:
    """The lease of one relay, for `seconds` at a time, and the `shards` under it.

    What is lost to another relay, the `pipeline` forgets; of what is above the fair share, it
    publishes nothing more. `recall` gets the shards that were another's, or nobody's, before they
    are worked on. The methods raise `DatabaseError`.

    Each statement on the `line` commits itself: a relay that stops between its statement and a
    COMMIT would keep its shards from all others for as long as its connection lasts.
    """

    def __init__(
        self,
        line: Line,
        schema: str,
        owner: str,
        seconds: float,
        pipeline: Pipeline,
        recall: Callable[[Set[int]], object],
    ) -> None:
        self._line = line
        self._schema = schema
        self.seconds = seconds
        self._pipeline = pipeline
        self._recall = recall
        self.shards = Shards()
        self.lease = Lease(owner)
        #: When it is too late to publish, and when to renew, on the monotonic clock.
        self.valid_until = self.renew_at = 0.0
        #: The shards that are above the fair share, as long as something of theirs is under way.
        self.leaving: frozenset[int] = frozenset()
        self._known = False  # whether others may count on this relay

    def renew(self) -> None:
        """Keep what is held and take what is free, if that is due."""
        now = monotonic()
        if now < self.renew_at:
            return
        # Shorter than promised by the time that passes until another relay looks.
        seconds = LEASE_USED * self.seconds
        self._known = True
        self.shards.lower(self._pipeline.dropped())
        floors = self.shards.floors(self._pipeline.lowest())
        with self._line() as connection:
            grant = leases.acquire(
                connection, self._schema, self.lease, seconds=seconds, floors=floors
            )
        held, ours = self.lease.epochs, grant.lease.epochs
        changed = {shard for shard in (*held, *ours) if held.get(shard) != ours.get(shard)}
        if begun := changed & ours.keys():
            self._recall(begun)
        # The database's lease began after `now`.
        self.valid_until = now + LEASE_USED * seconds
        self.renew_at = now + min(RENEW, (1 - LEASE_USED) * self.seconds)
        if grant.next_end is not None:
            self.renew_at = min(self.renew_at, monotonic() + grant.next_end + TAKE_AFTER)
        self.lease = grant.lease
        if changed:
            self._pipeline.forget(changed)
        self.shards.end(changed)
        self.shards.begin({s: floor for s, floor in grant.floors.items() if s in changed})
        leaving = frozenset(self.lease.shards[grant.share :])
        if leaving != self.leaving:
            self.leaving = leaving
            self._pipeline.retire(leaving)
            self.shards.lower(self._pipeline.dropped())
            self.shards.expect()

    def give_up(self) -> None:
        """Give back shards that are above the fair share, once nothing of theirs is under way."""
        done = [shard for shard in self.leaving if not self._pipeline.open_in(shard)]
        if not done:
            return
        epochs = self.lease.epochs
        given = attrs.evolve(self.lease, epochs={shard: epochs[shard] for shard in done})
        with self._line() as connection:
            leases.release(connection, self._schema, given)
        self.leaving -= given.epochs.keys()
        self._pipeline.retire(self.leaving)
        kept = {shard: epoch for shard, epoch in epochs.items() if shard not in given.epochs}
        self.lease = attrs.evolve(self.lease, epochs=kept)
        self.shards.end(done)

    def close(self) -> None:
        """Give everything back; never raises, and legal again."""
        lease, self.lease = self.lease, Lease(self.lease.owner)
        self._pipeline.forget(lease.shards)
        self._pipeline.retire(())
        self._pipeline.dropped()
        self.shards.end(lease.shards)
        self.valid_until = self.renew_at = 0.0
        known, self._known = self._known, False
        self.leaving = frozenset()
        if known:
            try:
                with self._line() as connection:
                    leases.release(connection, self._schema, lease)
                    leases.leave(connection, self._schema, lease.owner)
            except ServiceError as error:
                log.warning("relay: leases are left to expire: %s", error)
