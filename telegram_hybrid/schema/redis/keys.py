"""Names of Redis keys: the only place that builds and parses them.

    telegram:msg:{<channel_id>}:<message_id>     one message
    telegram:dedup:{<channel_id>}:<message_id>   "this message is stored"
    telegram:channel:{<channel_id>}:recent       the head window: a channel's newest messages
    telegram:channel:{<channel_id>}:page:<n>     the messages with ids from n * PAGE on
    telegram:channel:{<channel_id>}:tombstone    the newest version the channel was invalidated for
    telegram:channel:{<channel_id>}:generation   changes with every write to the channel
    telegram:api:<name>:<hash>                   the result of a query
    <a value's key>:lease                        who may fill it (see `scripts`)
    <a value's key>:last                         the value as it was last filled (an option)
    <a window's key>:held                        the window, put aside while a writer commits
    telegram:wake                                pub/sub channel that wakes relays
    telegram:filled                              pub/sub channel that wakes waiting readers

The braces are literal: Redis Cluster hashes only what they enclose (Redis Cluster specification,
"Hash tags"), so everything about one channel shares a slot and scripts stay legal there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

import attrs

from telegram_hybrid.errors import ConfigurationError

_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_REST = re.compile(
    r"(?:(?P<kind>msg|dedup):\{(?P<one>-?[1-9][0-9]*)\}:(?P<number>0|[1-9][0-9]*)"
    r"|channel:\{(?P<many>-?[1-9][0-9]*)\}:"
    r"(?:(?P<part>recent|tombstone|generation)|page:(?P<page>0|[1-9][0-9]*)))"
    r"(?::(?P<guard>lease|held|last))?"
)


class Kind(StrEnum):
    """What a key holds, as spelled in its name."""

    MESSAGE = "msg"
    SEEN = "dedup"
    WINDOW = "recent"
    PAGE = "page"
    TOMBSTONE = "tombstone"
    GENERATION = "generation"


class Guard(StrEnum):
    """The keys beside a value."""

    LEASE = "lease"
    HELD = "held"
    LAST = "last"


_LEASE = f":{Guard.LEASE}"
_NUMBERED = (Kind.MESSAGE, Kind.SEEN, Kind.PAGE)


@attrs.frozen(slots=True)
class KeyName:
    """A parsed name.

    `number` is the id of a message or the number of a page; `guard` is None for the value itself.
    """

    kind: Kind
    channel_id: int
    number: int | None = None
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

    def messages(self, channel_id: int, message_ids: Iterable[int]) -> dict[int, str]:
        """Name the values of several messages of a channel: {message_id: name}."""
        head = f"{self.prefix}:msg:{{{channel_id}}}:"
        return {number: f"{head}{number}" for number in message_ids}

    def seen(self, channel_id: int, message_id: int) -> str:
        """Name the flag that says a message is stored."""
        return f"{self.prefix}:dedup:{{{channel_id}}}:{message_id}"

    def flags(self, channel_id: int, message_ids: Iterable[int]) -> dict[int, str]:
        """Name the seen flags of several messages of a channel: {message_id: name}."""
        head = f"{self.prefix}:dedup:{{{channel_id}}}:"
        return {number: f"{head}{number}" for number in message_ids}

    def window(self, channel_id: int) -> str:
        """Name the head window of a channel."""
        return f"{self.prefix}:channel:{{{channel_id}}}:recent"

    def page(self, channel_id: int, number: int) -> str:
        """Name a page of a channel's messages."""
        return f"{self.prefix}:channel:{{{channel_id}}}:page:{number}"

    def tombstone(self, channel_id: int) -> str:
        """Name the newest version that a channel was invalidated for."""
        return f"{self.prefix}:channel:{{{channel_id}}}:tombstone"

    def generation(self, channel_id: int) -> str:
        """Name what changes with every write to a channel."""
        return f"{self.prefix}:channel:{{{channel_id}}}:generation"

    def api(self, name: str, digest: str) -> str:
        """Name the result of a query."""
        return f"{self.prefix}:api:{name}:{digest}"

    def lease(self, key: str) -> str:
        """Name the lease that guards `key`; same slot."""
        return key + _LEASE

    def held(self, key: str) -> str:
        """Name the place where the window `key` is put aside; same slot."""
        return f"{key}:{Guard.HELD}"

    def last(self, key: str) -> str:
        """Name the copy of `key` that outlives it; same slot."""
        return f"{key}:{Guard.LAST}"

    @property
    def wake(self) -> str:
        """Name the pub/sub channel on which writers wake relays."""
        return f"{self.prefix}:wake"

    @property
    def filled(self) -> str:
        """Name the pub/sub channel on which fills wake the readers that wait for them."""
        return f"{self.prefix}:filled"

    def build(self, name: KeyName) -> str:
        """Return the key that `parse` turns into `name`."""
        if name.kind in (Kind.MESSAGE, Kind.SEEN):
            key = f"{self.prefix}:{name.kind}:{{{name.channel_id}}}"
        else:
            key = f"{self.prefix}:channel:{{{name.channel_id}}}:{name.kind}"
        if name.kind in _NUMBERED:
            if name.number is None:
                raise ValueError(f"a {name.kind} key needs a number")
            key = f"{key}:{name.number}"
        return f"{key}:{name.guard}" if name.guard else key

    def parse(self, key: str | bytes) -> KeyName | None:
        """Take a key apart: the inverse of `build`. None for a key that is not one of ours."""
        text = key.decode("utf-8", "replace") if isinstance(key, bytes) else key
        if not text.startswith(f"{self.prefix}:"):
            return None
        match = _REST.fullmatch(text, len(self.prefix) + 1)
        if match is None:
            return None
        channel_id = int(match["one"] or match["many"])
        kind = Kind(match["kind"] or match["part"] or "page")
        number = match["number"] or match["page"]
        guard = Guard(match["guard"]) if match["guard"] else None
        return KeyName(kind, channel_id, int(number) if number else None, guard)
