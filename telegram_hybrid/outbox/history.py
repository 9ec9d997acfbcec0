"""History: what the broker said at each attempt to publish an event, the last of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

#: Attempts that are remembered, and characters of each reason.
KEPT, LONGEST = 20, 500


@attrs.frozen(slots=True)
class Attempt:
    """One refusal of an event: when (UTC, the database's clock), and in the broker's words."""

    at: datetime
    reason: str


def read(history: Sequence[dict[str, Any]] | None) -> tuple[Attempt, ...]:
    """The attempts of a column `history`, oldest first."""
    return tuple(
        Attempt(datetime.fromisoformat(each["at"]).astimezone(UTC), each["reason"])
        for each in history or ()
    )


def noted(history: str, reason: str) -> str:
    """SQL for the column `history` with one attempt more; both are SQL too."""
    known = f"coalesce({history}, CAST('[]' AS jsonb))"
    return f"""(
        CASE WHEN jsonb_array_length({known}) >= {KEPT} THEN {known} - 0 ELSE {known} END
        || jsonb_build_array(jsonb_build_object(
            'at', clock_timestamp(), 'reason', left({reason}, {LONGEST}))))"""
