"""What the protocol asks for: of Redis, of the database, and to be woken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import attrs

from telegram_hybrid.model import ChannelWrite


@attrs.frozen(slots=True)
class Get:
    """Read values. Reply: one `bytes | None` per key, in order."""

    keys: Sequence[str]


@attrs.frozen(slots=True)
class LeaseEntry:
    """A key to lease.

    `undecodable`: what is there could not be decoded, so discard it. `missing`: nothing was there,
    so grant nothing if something is there by now, and have the reader look again.
    """

    key: str
    token: str
    seconds: float
    undecodable: bool = False
    missing: bool = False


@attrs.frozen(slots=True)
class Lease:
    """Ask for leases. Reply: one `Grant` per entry, in order.

    `early`: to load again what has not expired yet, so nobody needs to wait for it.
    """

    entries: Sequence[LeaseEntry]
    early: bool = False


@attrs.frozen(slots=True)
class Grant:
    """Whether a lease was granted, and if not, for how many seconds another reader has it."""

    granted: bool
    left: float = 0.0


@attrs.frozen(slots=True)
class Await:
    """Sleep until another reader has filled `key` or given up, `seconds` at most. No reply."""

    key: str
    seconds: float


@attrs.frozen(slots=True)
class Load:
    """Read from the database, in a snapshot that begins now. Reply: `Loaded`.

    `ids` are message ids or numbers of pages; for a head window there are none. `guarded`: the
    answer may be stored, so load it whole and say what guards it.
    """

    ids: Sequence[int]
    guarded: bool = False


@attrs.frozen(slots=True)
class Loaded:
    """What was read, and what was known of its channel just before.

    `as_of` is the version that the channel had. `quiet`: no writer held the channel's lock. Then
    whoever commits later will have marked first, and taken away the lease that guards this value;
    otherwise a writer may have marked before the lease was granted, so that nothing guards it.
    """

    value: Any
    as_of: int = 0
    quiet: bool = False


@attrs.frozen(slots=True)
class FillEntry:
    """A value to store under the lease that `token` won; b"" only gives the lease back."""

    key: str
    token: str
    as_of: int = 0
    value: bytes = b""
    seconds: float = 1.0


@attrs.frozen(slots=True)
class Fill:
    """Store values of one channel. Reply: one bool per entry, in order: stored."""

    channel_id: int
    entries: Sequence[FillEntry]


@attrs.frozen(slots=True)
class Flag:
    """Store seen flags. No reply is needed."""

    keys: Sequence[str]
    seconds: float


@attrs.frozen(slots=True)
class GetResult:
    """Read a query's result and the generations of its channels. Reply: `bytes | None` of each."""

    key: str
    channel_ids: Sequence[int]


@attrs.frozen(slots=True)
class Generations:
    """Read the generations of channels, `token` for those that have none. Reply: them, in order."""

    channel_ids: Sequence[int]
    token: str


@attrs.frozen(slots=True)
class SetResult:
    """Store a query's result. No reply is needed."""

    key: str
    value: bytes
    seconds: float


@attrs.frozen(slots=True)
class Mark:
    """Serve nothing of this any more, because it is about to be committed. Reply: True if done."""

    writes: Sequence[ChannelWrite]


@attrs.frozen(slots=True)
class Invalidate:
    """Forget what is older than this, which was committed. Reply: True if all of it was applied.

    `repair`: in the place of a writer that may have died. `wake`: and tell relays, behind it.
    """

    writes: Sequence[ChannelWrite]
    repair: bool = False
    wake: bool = False


RedisRequest: TypeAlias = (
    Get | Lease | Fill | Flag | GetResult | Generations | SetResult | Mark | Invalidate
)
Request: TypeAlias = Load | Await | RedisRequest


def size(request: RedisRequest) -> int:
    """Of how many keys it asks or tells, about."""
    match request:
        case Get(some) | Flag(some) | Lease(some) | Fill(_, some):
            return len(some)
        case Mark(writes) | Invalidate(writes):
            return sum(1 + len(write.changes) for write in writes)
    return 1
