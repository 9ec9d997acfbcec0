"""Names of Redis keys: the only place that builds and parses them.

    telegram:msg:{<channel_id>}:<message_id>     one message
    telegram:dedup:{<channel_id>}:<message_id>   "this message is stored"
    telegram:channel:{<channel_id>}:recent       the newest messages of a channel
    <any of these>:lease                         who may fill it (see `scripts`)
    <any of these>:tombstone                     the newest version it was invalidated for
    telegram:wake                                pub/sub channel that wakes relays

The braces are literal: Redis Cluster hashes only what they enclose (Redis Cluster specification,
"Hash tags"), so everything about one channel shares a slot and scripts stay legal there.
"""

from __future__ import annotations

import re
from enum import StrEnum

import attrs

from telegram_hybrid.errors import ConfigurationError

_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_REST = re.compile(
    r"(?:(?P<kind>msg|dedup):\{(?P<one>-?[1-9][0-9]*)\}:(?P<message>0|[1-9][0-9]*)"
    r"|channel:\{(?P<many>-?[1-9][0-9]*)\}:recent)"
    r"(?::(?P<guard>lease|tombstone))?"
)


class Kind(StrEnum):
    """What a key holds, as spelled in its name."""

    MESSAGE = "msg"
    SEEN = "dedup"
    WINDOW = "channel"


class Guard(StrEnum):
    """The two keys that guard a value."""

    LEASE = "lease"
    TOMBSTONE = "tombstone"


@attrs.frozen(slots=True)
class KeyName:
    """A parsed name. `message_id` is None for a window, `guard` is None for the value itself."""

    kind: Kind
    channel_id: int
    message_id: int | None = None
    guard: Guard | None = None


def _checked(_: object, __: object, value: str) -> None:
    # A brace in the prefix would become the hash tag and spread a channel over the cluster.
    if not _PREFIX.fullmatch(value):
        raise ConfigurationError(
            f"redis_prefix: {value!r} is not 1 to 64 letters, digits, '_', '.', ':' or '-'"
        )


@attrs.frozen(slots=True)
class Keys:
    """Key names below one prefix. Raises `ConfigurationError` for a prefix that cannot be one."""

    prefix: str = attrs.field(default="telegram", validator=_checked)

    def message(self, channel_id: int, message_id: int) -> str:
        """Name the value of one message."""
        return f"{self.prefix}:msg:{{{channel_id}}}:{message_id}"

    def seen(self, channel_id: int, message_id: int) -> str:
        """Name the flag that says a message is stored."""
        return f"{self.prefix}:dedup:{{{channel_id}}}:{message_id}"

    def window(self, channel_id: int) -> str:
        """Name the head window of a channel."""
        return f"{self.prefix}:channel:{{{channel_id}}}:recent"

    def lease(self, key: str) -> str:
        """Name the lease that guards `key`; same slot."""
        return f"{key}:{Guard.LEASE}"

    def tombstone(self, key: str) -> str:
        """Name the tombstone that guards `key`; same slot."""
        return f"{key}:{Guard.TOMBSTONE}"

    @property
    def wake(self) -> str:
        """Name the pub/sub channel on which writers wake relays."""
        return f"{self.prefix}:wake"

    def build(self, name: KeyName) -> str:
        """Return the key that `parse` turns into `name`."""
        if name.kind is Kind.WINDOW:
            key = self.window(name.channel_id)
        elif name.message_id is None:
            raise ValueError(f"a {name.kind} key needs a message_id")
        elif name.kind is Kind.SEEN:
            key = self.seen(name.channel_id, name.message_id)
        else:
            key = self.message(name.channel_id, name.message_id)
        return f"{key}:{name.guard}" if name.guard else key

    def parse(self, key: str | bytes) -> KeyName | None:
        """Take a key apart: the inverse of `build`. None for a key that is not one of ours."""
        text = key.decode("utf-8", "replace") if isinstance(key, bytes) else key
        if not text.startswith(f"{self.prefix}:"):
            return None
        match = _REST.fullmatch(text, len(self.prefix) + 1)
        if match is None:
            return None
        guard = Guard(match["guard"]) if match["guard"] else None
        if match["kind"] is None:
            return KeyName(Kind.WINDOW, int(match["many"]), None, guard)
        return KeyName(Kind(match["kind"]), int(match["one"]), int(match["message"]), guard)
