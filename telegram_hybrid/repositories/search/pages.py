"""Where in the results a page ends and the next one begins: pure functions, no I/O.

What a search finds is ordered in blocks: the newest hundred matches, ranked, then the next hundred.
So a page costs the same however many messages match, and each match comes once: a cursor holds the
bounds of the block that it stands in, and they do not move when something is stored in between.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import attrs
import msgspec

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import MessageKey, checks

#: Matches that are ranked together.
BLOCK = 100

_VERSION = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOWEST = -(2**63 - 1)  # ids are nearer to zero


class Place(NamedTuple):
    """A place in the order of time; later is greater."""

    sent_at: datetime
    channel_id: int
    message_id: int

    @classmethod
    def before(cls, at: datetime) -> Place:
        """Above all that was sent before `at`, below all that was sent then."""
        return cls(at, _LOWEST, _LOWEST)

    @property
    def key(self) -> MessageKey:
        """The message that stands there."""
        return MessageKey(self.channel_id, self.message_id)


class Hit(NamedTuple):
    """A message that fits, and how well."""

    rank: float
    place: Place


@attrs.frozen(slots=True)
class Block:
    """A block of matches and how far it has been read.

    It is what is below `upper` and not below `lowest`; `lowest` is None before it was looked up,
    and `is_last` says whether anything lies below it. What comes up to `after` has been read.
    """

    upper: Place
    lowest: Place | None = None
    is_last: bool = False
    after: Hit | None = None

    def among(self, newest: Sequence[Hit]) -> Block:
        """Return the block with its lower bound, from the newest `BLOCK` matches below `upper`."""
        if not newest:
            return attrs.evolve(self, lowest=self.upper, is_last=True)
        lowest = min(match.place for match in newest)
        return attrs.evolve(self, lowest=lowest, is_last=len(newest) < BLOCK)

    def unread(self, matches: Iterable[Hit]) -> list[Hit]:
        """Return those of the block that come after what was read, the best first."""
        lowest = self.lowest or self.upper
        ranked = sorted((match for match in matches if match.place >= lowest), reverse=True)
        return [match for match in ranked if self.after is None or match < self.after]

    def read(self, taken: Sequence[Hit], of: Sequence[Hit]) -> Block | None:
        """Return where to go on after `taken`, the first ones of the unread; None at the end."""
        if len(taken) < len(of):
            return attrs.evolve(self, after=taken[-1]) if taken else self
        return None if self.is_last else Block(self.lowest or self.upper)


def encode(block: Block, search: str) -> str:
    """Return an opaque cursor of the search that `search` tells apart from others."""
    after = [block.after.rank, *_numbers(block.after.place)] if block.after else None
    lowest = _numbers(block.lowest) if block.lowest else None
    said = [_VERSION, search, _numbers(block.upper), lowest, block.is_last, after]
    return base64.urlsafe_b64encode(msgspec.json.encode(said)).rstrip(b"=").decode()


def decode(cursor: Any, search: str) -> Block:
    """Return what `encode` was given. Raises `InvalidInput` for what is no cursor of it."""
    text = checks.text("cursor", cursor)
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        said = _DECODER.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
        version, of, upper, lowest, is_last, after = said
        block = Block(
            _place(upper),
            _place(lowest) if lowest else None,
            is_last,
            Hit(after[0], _place(after[1:])) if after else None,
        )
    except (ValueError, OverflowError, msgspec.DecodeError):
        raise InvalidInput("cursor", "not one that search gave") from None
    if version != _VERSION or of != search:
        raise InvalidInput("cursor", "of another search: give it with the arguments it came from")
    return block


def _numbers(place: Place) -> tuple[int, int, int]:
    return ((place.sent_at - _EPOCH) // timedelta(microseconds=1), *place[1:])


def _place(numbers: tuple[int, int, int]) -> Place:
    microseconds, channel_id, message_id = numbers
    at = _EPOCH + timedelta(microseconds=microseconds)
    if not checks.EARLIEST <= at <= checks.LATEST:
        raise ValueError(at)
    return Place(at, checks.bigint("cursor", channel_id), checks.bigint("cursor", message_id))


_Numbers = tuple[int, int, int]
_DECODER = msgspec.json.Decoder(
    tuple[int, str, _Numbers, _Numbers | None, bool, tuple[float, int, int, int] | None]
)
