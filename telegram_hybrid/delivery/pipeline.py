"""Pipeline: which event goes out next, and what is to become of each that was answered; pure.

A window of unconfirmed publishes over all channels; within a channel, events go out by their
number. In strict order a channel has one unconfirmed event: whatever the broker refuses, nothing
of the channel overtakes it (P3). Otherwise it may have many, and is faster alone; then an event
that is refused (a full queue that rejects publishes, no queue bound) goes out again behind those
that were under way with it, and no receiver can put that right.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

import attrs

from telegram_hybrid.delivery.confirms import Receipt, Verdict
from telegram_hybrid.outbox.rows import OutboxRow
from telegram_hybrid.schema.postgres.tables import shard_of

#: Unconfirmed publishes over all channels.
WINDOW = 1000


@attrs.define(slots=True, eq=False)
class _Lane:
    """One channel: what waits, by number, and what is under way, in the order of going out."""

    shard: int
    waiting: deque[OutboxRow] = attrs.field(factory=deque)
    flying: dict[int, OutboxRow] = attrs.field(factory=dict)
    refused: bool = False
    queued: bool = False


@attrs.define(slots=True)
class Answered:
    """What was answered and is not settled in the outbox yet."""

    confirmed: dict[int, OutboxRow] = attrs.field(factory=dict)
    refused: dict[int, tuple[OutboxRow, Receipt]] = attrs.field(factory=dict)


class Pipeline:
    """The events that a relay has in memory, from reading to the end of settling.

    `offer` what was read, `take` what is to be published now, tell it what `answered`, settle
    `unsettled` in the outbox and tell that it is `settled`.
    """

    def __init__(self, *, window: int = WINDOW, strict: bool = True) -> None:
        self._window = window
        self._strict = strict
        self._lanes: dict[int, _Lane] = {}
        # Lanes with something to publish now; each once, served in turns.
        self._ready: deque[_Lane] = deque()
        self._flying: dict[str, tuple[OutboxRow, _Lane]] = {}
        self._answered = Answered()
        self._waiting: dict[int, int] = {}
        self._retired: frozenset[int] = frozenset()
        self._dropped: dict[int, int] = {}

    @property
    def flying(self) -> int:
        """How many events are under way, unanswered."""
        return len(self._flying)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to publish, to wait for or to settle."""
        answered = self._answered
        return not (self._flying or self.waiting or answered.confirmed or answered.refused)

    @property
    def waiting(self) -> int:
        """How many events were read and not published yet."""
        return sum(self._waiting.values())

    @property
    def confirmed(self) -> int:
        """How many confirmed events wait for `settled`."""
        return len(self._answered.confirmed)

    @property
    def refused(self) -> int:
        """How many refused events wait for `settled`."""
        return len(self._answered.refused)

    def unsettled(self) -> Answered:
        """What was answered and waits for `settled`, as it is now."""
        return Answered(dict(self._answered.confirmed), dict(self._answered.refused))

    def waiting_in(self, shard: int) -> int:
        """How many events of a shard were read and not published yet."""
        return self._waiting.get(shard, 0)

    def open_in(self, shard: int) -> bool:
        """Whether events of a shard are under way, or answered and not settled."""
        answered = self._answered
        return (
            any(lane.shard == shard for _, lane in self._flying.values())
            or any(shard_of(row.channel_id) == shard for row in answered.confirmed.values())
            or any(shard_of(row.channel_id) == shard for row, _ in answered.refused.values())
        )

    def known(self) -> list[int]:
        """The ids of all events here: reading them again would publish them twice."""
        ids = [row.id for lane in self._lanes.values() for row in lane.waiting]
        ids += [row.id for row, _ in self._flying.values()]
        ids += self._answered.confirmed
        ids += self._answered.refused
        return ids

    def lowest(self) -> dict[int, int]:
        """The lowest id of the events here, {shard: id}."""
        lowest: dict[int, int] = {}
        answered = self._answered
        for row in (
            *(lane.waiting[0] for lane in self._lanes.values() if lane.waiting),
            *(row for row, _ in self._flying.values()),
            *answered.confirmed.values(),
            *(row for row, _ in answered.refused.values()),
        ):
            lowest[row.shard] = min(row.id, lowest.get(row.shard, row.id))
        return lowest

    def dropped(self) -> dict[int, int]:
        """What has to be read again since this was last asked: {shard: the lowest id}."""
        dropped, self._dropped = self._dropped, {}
        return dropped

    def offer(self, rows: Iterable[OutboxRow]) -> None:
        """Take in rows that are not known here, those of a channel by id.

        A channel's earlier rows were offered before or are gone from the outbox.
        """
        for row in rows:
            lane = self._lanes.get(row.channel_id)
            if lane is None:
                lane = self._lanes[row.channel_id] = _Lane(shard_of(row.channel_id))
            if lane.refused or lane.shard in self._retired:
                self._drop(lane, row)
                continue
            lane.waiting.append(row)
            self._waiting[lane.shard] = self._waiting.get(lane.shard, 0) + 1
            self._queue(lane)

    def take(self, most: int) -> list[OutboxRow]:
        """Return up to `most` rows to publish now, in this order; they are under way from here."""
        rows: list[OutboxRow] = []
        room = min(most, self._window - len(self._flying))
        while len(rows) < room and self._ready:
            lane = self._ready.popleft()
            lane.queued = False
            if not lane.waiting:
                continue
            row = lane.waiting.popleft()
            self._waiting[lane.shard] -= 1
            lane.flying[row.id] = row
            self._flying[str(row.event_id)] = (row, lane)
            rows.append(row)
            self._queue(lane)
        return rows

    def answered(self, receipts: Iterable[Receipt]) -> None:
        """Take in the broker's answers; those to events that are not under way are ignored.

        A refusal stops its channel: what waited is forgotten, to be read again when the channel
        goes on. Of a channel's refusals the first one counts.
        """
        for receipt in receipts:
            row, lane = self._flying.pop(receipt.message_id, (None, None))
            if row is None or lane is None:
                continue
            del lane.flying[row.id]
            if receipt.verdict is Verdict.CONFIRMED:
                self._answered.confirmed[row.id] = row
            elif lane.refused:
                self._drop(lane, row)
            else:
                self._answered.refused[row.id] = (row, receipt)
                self._drop(lane, row)
                lane.refused = True
                self._clear(lane)
            self._queue(lane)

    def settled(self, done: Answered) -> None:
        """Forget what was settled in the outbox; refused channels may be read again."""
        for number, row in done.confirmed.items():
            self._answered.confirmed.pop(number, None)
            self._tidy(row.channel_id)
        for number, (row, _) in done.refused.items():
            if self._answered.refused.pop(number, None) is not None:
                self._lanes[row.channel_id].refused = False
            self._tidy(row.channel_id)

    def lost(self) -> None:
        """The connection is gone: what was under way goes out again, first and in its order."""
        flying, self._flying = self._flying, {}
        for row, lane in flying.values():
            if lane.refused:
                self._drop(lane, row)
            else:
                lane.waiting.extendleft(sorted(lane.flying.values(), key=_number, reverse=True))
                self._waiting[lane.shard] = self._waiting.get(lane.shard, 0) + len(lane.flying)
            lane.flying = {}
            if lane.shard in self._retired:
                self._clear(lane)
            self._queue(lane)
            self._tidy(row.channel_id)

    def retire(self, shards: Collection[int]) -> None:
        """Publish nothing more of exactly these shards; what is under way comes to its end."""
        self._retired = frozenset(shards)
        for channel, lane in list(self._lanes.items()):
            if lane.shard in self._retired:
                self._clear(lane)
                self._tidy(channel)

    def forget(self, shards: Collection[int]) -> None:
        """Drop all that is here of these shards: they are another relay's."""
        gone = {channel for channel, lane in self._lanes.items() if lane.shard in shards}
        for channel in gone:
            self._clear(self._lanes.pop(channel))
        answered = self._answered
        self._flying = {
            name: entry for name, entry in self._flying.items() if entry[0].channel_id not in gone
        }
        self._answered = Answered(
            {n: row for n, row in answered.confirmed.items() if row.channel_id not in gone},
            {n: pair for n, pair in answered.refused.items() if pair[0].channel_id not in gone},
        )

    def _queue(self, lane: _Lane) -> None:
        if lane.waiting and not lane.queued and not (self._strict and lane.flying):
            lane.queued = True
            self._ready.append(lane)

    def _clear(self, lane: _Lane) -> None:
        if lane.waiting:
            self._waiting[lane.shard] -= len(lane.waiting)
            self._drop(lane, lane.waiting[0])
            lane.waiting.clear()

    def _drop(self, lane: _Lane, row: OutboxRow) -> None:
        self._dropped[lane.shard] = min(row.id, self._dropped.get(lane.shard, row.id))

    def _tidy(self, channel_id: int) -> None:
        lane = self._lanes.get(channel_id)
        if lane is not None and not (lane.waiting or lane.flying or lane.refused):
            del self._lanes[channel_id]


def _number(row: OutboxRow) -> int:
    return row.id
