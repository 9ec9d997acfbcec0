"""The check: every row is made into what it would become, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

import attrs

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.legacy.merging import Merged, merge
from telegram_hybrid.legacy.report import Found
from telegram_hybrid.legacy.rows import LegacyRow, channel_of
from telegram_hybrid.legacy.source import Source, Spelling
from telegram_hybrid.model import Channel

Told = Callable[[str, int, int], object]


@attrs.frozen(slots=True)
class Plan:
    """What is to be brought: the spellings of each channel's id, and the registered channels."""

    channels: dict[int, tuple[str, ...]]
    registered: tuple[Channel, ...]
    found: Found


@attrs.frozen(slots=True)
class Refused:
    """A message whose copies cannot be brought."""

    message_id: int
    copies: int
    error: InvalidInput


def check(source: Source, named: Mapping[str, int], told: Told) -> Plan:
    """Go through all rows of the source as a migration would. `told(stage, done, total)`."""
    found = Found(missing=source.missing)
    channels = _channels(source.spellings(), named, found)
    registered = []
    for channel, problem in source.channels():
        if channel is None:
            found.refuse("channels", InvalidInput("channel", problem), 0)
        else:
            registered.append(channel)
    found.channels, found.registered = len(channels), len(registered)
    for channel_id, spellings in channels.items():
        for each in messages(channel_id, source.rows(spellings, -1)):
            if isinstance(each, Refused):
                place = f"channel {channel_id}, message {each.message_id}"
                found.refuse(place, each.error, each.copies)
            else:
                found.add(each)
            told("check", found.merged + found.refused.total(), found.rows)
    return Plan(channels, tuple(registered), found)


def messages(channel_id: int, rows: Iterable[LegacyRow]) -> Iterator[Merged | Refused]:
    """Make the rows of a channel, by message id, into messages."""
    for message_id, group in groupby(rows, key=attrgetter("message_id")):
        copies = list(group)
        try:
            yield merge(channel_id, copies)
        except InvalidInput as error:
            yield Refused(message_id, len(copies), error)


def _channels(
    spellings: Sequence[Spelling], named: Mapping[str, int], found: Found
) -> dict[int, tuple[str, ...]]:
    """Return the spellings by channel; rows that name none, or have no usable id, are refused."""
    channels: dict[int, tuple[str, ...]] = {}
    for each in spellings:
        found.rows += each.rows
        try:
            channel_id = channel_of(each.text, named)
        except InvalidInput as error:
            found.refuse(f"{each.rows:,} rows", error, each.rows)
            continue
        channels[channel_id] = (*channels.get(channel_id, ()), each.text or "")
        if unusable := each.rows - each.usable:
            problem = InvalidInput("message_id", "missing, or outside 0 to 2**52 - 1")
            found.refuse(f"channel {channel_id}, {unusable:,} rows", problem, unusable)
    return dict(sorted(channels.items()))
