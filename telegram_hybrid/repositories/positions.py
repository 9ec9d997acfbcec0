"""Cursors of `messages.changes`: up to which version each channel was read; pure, no I/O.

Versions come from one sequence, and a channel's are drawn under its lock. So within a channel they
come in the order of the commits, and across channels they do not: a transaction may commit long
after it drew a version, behind others with higher ones. One number for all channels would skip it.
Hence a position for each channel. As text it takes some 12 characters for each of them:

    c1.<base64url>    a byte of flags, then for each channel by id the step from the one before and
                      the version, as variable-length integers (LEB128), and CRC-32 of all that
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from zlib import crc32

import attrs

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import checks

_PREFIX = "c1."
_EVERYWHERE = 1
_MOST = 2**63 - 1


@attrs.frozen(slots=True)
class Positions:
    """How far a reader has come: `versions` is {channel_id: the last version it was given}.

    A channel that is not in it was never asked for, or, if `everywhere` (all channels were), had
    no change yet.
    """

    versions: Mapping[int, int] = attrs.field(factory=dict)
    everywhere: bool = False

    def asked(self, channels: Iterable[int] | None) -> Positions:
        """Note that these channels were asked for; None: all of them."""
        if channels is None:
            return attrs.evolve(self, everywhere=True)
        fresh = {} if self.everywhere else dict.fromkeys(channels, 0)
        return attrs.evolve(self, versions=fresh | dict(self.versions))

    def reached(self, versions: Iterable[tuple[int, int]]) -> Positions:
        """Go on to these versions of channels; never back."""
        known = dict(self.versions)
        for channel_id, version in versions:
            known[channel_id] = max(version, known.get(channel_id, 0))
        return attrs.evolve(self, versions=known)

    def encode(self) -> str:
        """Write it as text: the same text for the same positions."""
        data = bytearray([_EVERYWHERE if self.everywhere else 0])
        before = -checks.MAX_ID
        for channel_id, version in sorted(self.versions.items()):
            _put(data, channel_id - before)
            _put(data, version)
            before = channel_id
        data += crc32(data).to_bytes(4, "big")
        return _PREFIX + urlsafe_b64encode(data).decode().rstrip("=")

    @classmethod
    def decode(cls, text: object) -> Positions:
        """Read what `encode` wrote. Raises `InvalidInput` for anything else."""
        if type(text) is not str:
            raise InvalidInput("cursor", f"expected a string, got {type(text).__name__}")
        try:
            found = cls._decoded(text.removeprefix(_PREFIX))
        except (ValueError, IndexError):
            found = None
        # Whatever else decodes to the same was cut, glued or edited by somebody.
        if found is None or found.encode() != text:
            raise InvalidInput(
                "cursor",
                f"{text[:20]!r} is no cursor of messages.changes, or a part of one: hand it back "
                "whole, as the page gave it",
            )
        return found

    @classmethod
    def _decoded(cls, text: str) -> Positions:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        body, versions = data[:-4], {}
        at, channel_id = 1, -checks.MAX_ID
        while at < len(body):
            step, at = _take(body, at)
            version, at = _take(body, at)
            channel_id = checks.channel_id("cursor", channel_id + step)
            versions[channel_id] = checks.count("cursor", version, most=_MOST)
        return cls(versions, everywhere=body[0] == _EVERYWHERE)


def _put(data: bytearray, number: int) -> None:
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)


def _take(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("more than 64 bits")
