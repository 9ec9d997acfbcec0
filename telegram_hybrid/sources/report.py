"""Report: what a source has read, what it skipped and why, what it had to assume."""

from __future__ import annotations

import attrs

#: How many of the skipped are kept with their place; all are counted.
EXAMPLES = 100


@attrs.frozen(slots=True)
class Skipped:
    """Something that is no message, or no message we can store, and why.

    `reason` is one of few (it is counted); `where` names file and place, `detail` what was wrong.
    """

    reason: str
    where: str | None = None
    detail: str | None = None


@attrs.define(slots=True)
class Report:
    """Counts of one reading; they grow while the reader is iterated.

    `messages_read` counts the messages handed out. `skipped` counts the rest by reason, and
    `examples` holds the first 100 of those with their place. `assumed_timezone` counts the
    messages whose date named no zone, so that the reader's `timezone` was taken.
    """

    messages_read: int = 0
    skipped: dict[str, int] = attrs.field(factory=dict)
    examples: list[Skipped] = attrs.field(factory=list)
    assumed_timezone: int = 0

    def skip(self, skipped: Skipped) -> None:
        """Count one skipped thing, and keep it if it is among the first."""
        self.skipped[skipped.reason] = self.skipped.get(skipped.reason, 0) + 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(skipped)
