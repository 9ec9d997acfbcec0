"""Arguments of calls: checked before any I/O, and made what the calls work with (P10)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.model import Claim, Status, checks
from telegram_hybrid.repositories.decisions import WAITING


def statuses_by_id(
    message_ids: Mapping[int, Status] | Iterable[int], status: Status | None
) -> dict[int, Status]:
    """Return the statuses that are wanted, by id. Raises `InvalidInput`."""
    if isinstance(message_ids, Mapping):
        if status is not None:
            raise InvalidInput("status", "message_ids say already which status each is to have")
        ids = checks.message_ids("message_ids", message_ids)
        return {n: markable(f"message_ids[{n}]", message_ids[n]) for n in ids}
    if status is None:
        raise InvalidInput("status", "ids alone: to which status?")
    return dict.fromkeys(distinct_ids(message_ids), markable("status", status))


def markable(field: str, status: Any) -> Status:
    """Return a status that `mark` may set. Raises `InvalidInput`."""
    wanted = checks.member(Status, field, status)
    if wanted is Status.DELETED:
        raise InvalidInput(field, "deleting has its own call: messages.delete(...)")
    return wanted


def distinct_ids(message_ids: Iterable[int]) -> list[int]:
    """Return the ids without repetitions, in order. Raises `InvalidInput`."""
    return list(dict.fromkeys(checks.message_ids("message_ids", message_ids)))


def claims_of(claims: Claim | Iterable[Claim]) -> list[Claim]:
    """Return one claim or several as a list, each once. Raises `InvalidInput`."""
    if isinstance(claims, Claim):
        return [claims]
    found = checks.tuple_of(Claim, "claims", list(checks.iterable("claims", claims)))
    return list({each.claim_id: each for each in found}.values())


def distinct_channels(channels: Iterable[int]) -> list[int]:
    """Return the channel ids without repetitions, in order. Raises `InvalidInput`."""
    found = enumerate(checks.iterable("channels", channels))
    return list(dict.fromkeys(checks.channel_id(f"channels[{n}]", each) for n, each in found))


def worker_name(name: str) -> str:
    """Return who claims: somebody. Raises `InvalidInput`."""
    said = checks.text("worker", name, most=200)
    if not said.strip():
        raise InvalidInput("worker", "empty: name who claims, for those who look")
    return said


def lease_seconds(seconds: float) -> float:
    """Return for how long a claim lasts: more than nothing. Raises `InvalidInput`."""
    if not checks.seconds("lease", seconds) > 0:
        raise InvalidInput("lease", "0 seconds: nobody could settle in time")
    return seconds


def retry_seconds(seconds: float, status: Status) -> float:
    """Return how long nobody claims what gets this status. Raises `InvalidInput`."""
    if checks.seconds("retry_in", seconds) > 0 and status not in WAITING:
        waiting = ", ".join(sorted(WAITING))
        raise InvalidInput("retry_in", f"what is {status} does not wait; {waiting} do")
    return seconds


def optional_instant(field: str, value: datetime | None) -> datetime | None:
    """Return a time, or None for none. Raises `InvalidInput`."""
    return None if value is None else checks.instant(field, value)


def optional_reason(reason: str | None) -> str | None:
    """Return a reason, or None for none. Raises `InvalidInput`."""
    return None if reason is None else checks.text("reason", reason)
