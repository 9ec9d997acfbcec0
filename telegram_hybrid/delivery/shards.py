"""Shards: which of those that a relay holds it looks through next, and from where; pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from telegram_hybrid.delivery.floor import Floor
from telegram_hybrid.outbox.claims import Ask, Found


class Shards:
    """The floors of the shards held, and in which of them there may be more than was read."""

    def __init__(self) -> None:
        self._floors: dict[int, Floor] = {}
        self._promising: set[int] = set()

    def begin(self, floors: Mapping[int, int]) -> None:
        """Hold these as well, or anew, and look through each from its floor on."""
        for shard, floor in floors.items():
            self._floors[shard] = Floor(floor)
            self._promising.add(shard)

    def end(self, shards: Iterable[int]) -> None:
        """Hold these no more."""
        for shard in shards:
            self._floors.pop(shard, None)
            self._promising.discard(shard)

    def expect(self) -> None:
        """There may be something new in each."""
        self._promising.update(self._floors)

    def asks(
        self, held: int, waiting_in: Callable[[int], int], without: frozenset[int], *, full: bool
    ) -> list[Ask]:
        """What to ask for, so that up to `held` events of each shard wait; `full`: from the start.

        A shard is asked when half of that is free.
        """
        rooms = {
            shard: held - waiting_in(shard) for shard in self._promising if shard not in without
        }
        return [
            Ask(shard, 0 if full else self._floors[shard].floor, room)
            for shard, room in rooms.items()
            if 2 * room >= held
        ]

    def looked(self, asks: Sequence[Ask], found: Found) -> None:
        """Note what was found."""
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        count: dict[int, int] = {}
        for row in found.rows:
            first.setdefault(row.shard, row.id)  # they come by id
            last[row.shard] = row.id
            count[row.shard] = count.get(row.shard, 0) + 1
        for ask in asks:
            full = count.get(ask.shard, 0) >= ask.room
            if not full:
                self._promising.discard(ask.shard)
            if first.get(ask.shard, math.inf) <= self._floors[ask.shard].floor:
                # Never by itself: somebody restored the table, or its numbers began anew.
                self._floors[ask.shard] = Floor(first[ask.shard] - 1)
            here = self._floors[ask.shard]
            here.looked(
                last.get(ask.shard),
                full=full,
                # Not the lowest that waits for its time: without strict order earlier events of
                # its channel may have none, and were left out with it.
                frozen=here.floor + 1 if ask.shard in found.frozen else None,
                ended=found.ended,
            )

    def floors(self, lowest: Mapping[int, int]) -> dict[int, int]:
        """From where whoever holds the shards next has to look; `lowest` are the ids of the
        first events of each shard that are in memory."""
        return {shard: each.kept(lowest.get(shard)) for shard, each in self._floors.items()}

    def lower(self, dropped: Mapping[int, int]) -> None:
        """Have events found again, from {shard: the lowest id} on."""
        for shard, lowest in dropped.items():
            if shard in self._floors:
                self._floors[shard].lower(lowest)

    def deleted(self, number: int) -> None:
        """Note the number of the relay's own transaction."""
        for floor in self._floors.values():
            floor.deleted(number)
