"""Ledger: what Redis was told to forget lately, and what it still has to be told. Sans I/O.

An invalidation that did not reach Redis is owed, and repeated until it is applied. One that did
reach it is remembered for a while, because a failover may lose what the old master acknowledged:
when the master changes, all of that is owed again. While anything is owed, no hit can be trusted.

Memory is bounded: up to `MESSAGES` messages are known one by one; beyond, whole channels, and
beyond `CHANNELS` of those everything, which is then forgotten by going through all our keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from telegram_hybrid.model import Change, ChannelWrite, EventType, MessageKey

#: Seconds for which an applied invalidation is remembered, at least; at most twice that.
REMEMBER = 10.0
#: Seconds after a change of the master, when what we owed is applied, until hits are trusted:
#: time for other processes to notice it (they look every quarter of a second) and repeat theirs.
GRACE = 2.0
#: Messages, and channels, that one account holds one by one; about 100 bytes each.
MESSAGES = 10_000
CHANNELS = 1_000
#: Messages in one invalidation, so that no script holds Redis up for long.
CHUNK = 500


@attrs.define(slots=True)
class Stale:
    """What has to be forgotten, in bounded memory.

    `versions` is the newest version of each channel; `messages` the versions of messages, by
    channel. Of the channels `whole` every value has to go; with `everything`, of all channels.
    """

    versions: dict[int, int] = attrs.field(factory=dict)
    messages: dict[int, dict[int, int]] = attrs.field(factory=dict)
    whole: set[int] = attrs.field(factory=set)
    everything: bool = False
    _count: int = 0

    def __bool__(self) -> bool:
        return self.everything or bool(self.versions)

    def add(self, writes: Iterable[ChannelWrite]) -> None:
        """Take in what was written."""
        for write in writes:
            changes = {change.key.message_id: change.version for change in write.changes}
            self._add(write.channel_id, write.version, changes)

    def add_whole(self, versions: Mapping[int, int]) -> None:
        """Take in that channels were written to, nobody knows where: {channel_id: version}."""
        for channel_id, version in versions.items():
            self._add(channel_id, version, {})
            if not self.everything:
                self._make_whole(channel_id)

    def merge(self, other: Stale) -> None:
        """Take in what is in another."""
        if other.everything:
            self.forget_all()
        for channel_id, version in other.versions.items():
            self._add(channel_id, version, other.messages.get(channel_id, {}))
            if channel_id in other.whole and not self.everything:
                self._make_whole(channel_id)

    def forget_all(self) -> None:
        """Hold nothing one by one any more: everything has to go."""
        self.everything = True
        self._count = 0
        for each in (self.versions, self.messages, self.whole):
            each.clear()

    def writes(self) -> list[ChannelWrite]:
        """What to invalidate: all messages that are known one by one, and all channels."""
        found = []
        for channel_id, version in self.versions.items():
            changes = [
                Change(MessageKey(channel_id, number), of, EventType.EDITED)
                for number, of in self.messages.get(channel_id, {}).items()
            ]
            for at in range(0, len(changes) or 1, CHUNK):
                some = tuple(changes[at : at + CHUNK])
                found.append(ChannelWrite(channel_id, version, some))
        return found

    def _add(self, channel_id: int, version: int, changes: dict[int, int]) -> None:
        if self.everything:
            return
        self.versions[channel_id] = max(version, self.versions.get(channel_id, 0))
        if len(self.versions) > CHANNELS:
            self.forget_all()
        elif channel_id not in self.whole:
            known = self.messages.setdefault(channel_id, {})
            self._count -= len(known)
            for number, of in changes.items():
                known[number] = max(of, known.get(number, 0))
            self._count += len(known)
            while self._count > MESSAGES:
                self._make_whole(max(self.messages, key=lambda each: len(self.messages[each])))

    def _make_whole(self, channel_id: int) -> None:
        self.whole.add(channel_id)
        self._count -= len(self.messages.pop(channel_id, {}))


class Ledger:
    """The account of one process; the caller serializes its calls. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._recent, self._older = Stale(), Stale()
        self._since = 0.0
        self._owed = Stale()
        self._paying: Stale | None = None
        self._moves = self._paying_after = self._paid_moves = 0
        self._trusted_at = float("-inf")

    @property
    def is_owing(self) -> bool:
        """Whether anything has to be repeated."""
        return bool(self._paying or self._owed) or self._moves != self._paid_moves

    def wait(self, now: float) -> float:
        """Seconds until hits may be trusted, once nothing is owed."""
        return max(0.0, self._trusted_at - now)

    def applied(self, now: float, writes: Iterable[ChannelWrite]) -> None:
        """Redis acknowledged an invalidation."""
        self._turn(now)
        self._recent.add(writes)

    def owe(self, writes: Iterable[ChannelWrite]) -> None:
        """Redis could not be told of this, or did not say that it was."""
        self._owed.add(writes)

    def owe_whole(self, versions: Mapping[int, int]) -> None:
        """Redis may not have been told of some writes to these channels: {channel_id: version}."""
        self._owed.add_whole(versions)

    def moved(self, heard_at: float, lost: float = 0.0) -> None:
        """Another server is the master: it may lack what the last one, heard then, acknowledged.

        It lacks the last `lost` seconds of that, as far as looks at intervals can tell: of more
        than half of what is remembered nobody may be left who knows it.
        """
        if lost > REMEMBER / 2:
            self._owed.forget_all()
        self._turn(heard_at)
        self._owed.merge(self._older)
        self._owed.merge(self._recent)
        self._moves += 1

    def restarted(self) -> None:
        """The server began anew, perhaps with the content of an old file."""
        self._owed.forget_all()
        self._moves += 1

    def begin(self) -> Stale:
        """Return what to repeat now; `settle` says what became of it."""
        if self._paying:  # by a thread that a fork left behind
            self._owed.merge(self._paying)
        self._paying, self._owed = self._owed, Stale()
        self._paying_after = self._moves
        return self._paying

    def settle(self, now: float, *, applied: bool) -> None:
        """What `begin` returned was applied, or has to be repeated again."""
        paid, self._paying = self._paying or Stale(), None
        if not applied or self._moves != self._paying_after:
            self._owed.merge(paid)
            return
        self._turn(now)
        self._recent.merge(paid)
        if self._moves != self._paid_moves:
            self._paid_moves = self._moves
            self._trusted_at = now + GRACE

    def _turn(self, now: float) -> None:
        """Forget what is older than `REMEMBER` twice."""
        age = now - self._since
        if age >= REMEMBER:
            self._older = self._recent if age < 2 * REMEMBER else Stale()
            self._recent, self._since = Stale(), now
