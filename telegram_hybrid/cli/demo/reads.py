"""Reading back, measured: the cache cold at first, then warm; every value is compared.

A `get` counts as hit or miss by what the cache's own counters say of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle, islice

from telegram_hybrid.cli.demo.input import PAGE, Witness
from telegram_hybrid.cli.demo.latency import Latencies, timed
from telegram_hybrid.errors import HybridError
from telegram_hybrid.hybrid import Hybrid
from telegram_hybrid.model import Message
from telegram_hybrid.repositories.decisions import Verdict, compare

#: Calls of `latest` and of `seen`, over the channels in turn; the first of each channel is cold.
CALLS = 200


class Mismatch(HybridError):
    """What was read is not what was sent: a bug, or a store that others write to."""


def read_back(hybrid: Hybrid, witness: Witness, latencies: Latencies, *, strict: bool) -> None:
    """Read what the witness remembers and time it. Raises `Mismatch`.

    `strict`: nothing of it was stored before, so that all must be equal to what was sent. Without
    it the store may know a newer content, or a deletion.
    """
    sample = witness.sample()
    for _ in ("cold", "warm"):
        for sent in sample:
            _get(hybrid, sent, latencies, strict)
    newest = witness.newest()
    for channel_id, page in islice(cycle(newest.items()), CALLS if newest else 0):
        with timed(latencies.latest):
            found = hybrid.messages.latest(channel_id, limit=PAGE)
        _check_page(hybrid, found, page, strict)
    for channel_id, page in islice(cycle(newest.items()), CALLS if newest else 0):
        ids = [message.message_id for message in page]
        with timed(latencies.seen):
            seen = hybrid.messages.seen(channel_id, ids)
        if seen != set(ids):
            raise Mismatch(f"seen: channel {channel_id} misses {sorted(set(ids) - seen)}")


def _get(hybrid: Hybrid, sent: Message, latencies: Latencies, strict: bool) -> None:
    took: list[float] = []
    before = hybrid.cache.stats().hits
    with timed(took):
        found = hybrid.messages.get(*sent.key, include_deleted=True)
    hit = hybrid.cache.stats().hits > before
    (latencies.get_hit if hit else latencies.get_miss).extend(took)
    compare_read(found, sent, strict=strict)


def _check_page(
    hybrid: Hybrid, found: list[Message], page: Iterable[Message], strict: bool
) -> None:
    ids = [message.message_id for message in found]
    if ids != sorted(set(ids), reverse=True):
        raise Mismatch(f"latest: ids are not newest first: {ids}")
    by_id = {message.message_id: message for message in found}
    lowest = ids[-1] if len(ids) == PAGE else -1
    for sent in page:
        if sent.message_id >= lowest:
            read = by_id.get(sent.message_id)
            if read is None and not strict:
                read = hybrid.messages.get(*sent.key, include_deleted=True)
                if read is not None and read.deleted_at is None:
                    read = None
            compare_read(read, sent, strict=strict)


def compare_read(found: Message | None, sent: Message, *, strict: bool) -> None:
    """Compare what was read with what was sent. Raises `Mismatch`; see `read_back`."""
    if found is None:
        raise Mismatch(f"message {sent.message_id} of channel {sent.channel_id} is not read back")
    same = found == sent if strict else compare(found, sent) is not Verdict.EDIT
    if not same:
        raise Mismatch(
            f"message {sent.message_id} of channel {sent.channel_id} was sent as "
            f"{sent.to_json()!r} and read as {found.to_json()!r}"
        )
