"""What a write means for what is stored: pure functions, no I/O."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum

from telegram_hybrid.errors import IllegalTransition
from telegram_hybrid.model import Message, Status

_NEVER = datetime.min.replace(tzinfo=UTC)


class Verdict(Enum):
    """What to do with a message whose key is stored already."""

    EDIT = "the content is newer: replace it, keep the old one as a revision"
    LATE = "the content is older and different: keep it as a revision only"
    CONFIRMED = "the same content, said again later: a duplicate, but note the time"
    DUPLICATE = "nothing new"


def compare(stored: Message, incoming: Message, said_at: datetime | None = None) -> Verdict:
    """Decide by content and time of edit; never by views, reactions or order of arrival alone.

    `said_at` is the latest `edited_at` with which the stored content came again (None: it did
    not). Telegram reports a reaction as an edit, and an edit may go back to an earlier text: the
    same content is a duplicate whatever its `edited_at`, but where that is later, the content is
    the newest as of then. Different content of an older time arrived late. At the same time (it
    has whole seconds, and is absent before the first edit) another text wins by arrival, while
    other entities or media are the same post as another source describes it.
    """
    stored_at, incoming_at = stored.edited_at or _NEVER, incoming.edited_at or _NEVER
    if said_at is not None and said_at > stored_at:
        stored_at = said_at
    same_text = stored.text == incoming.text and stored.caption == incoming.caption
    if same_text and stored.entities == incoming.entities and stored.media == incoming.media:
        return Verdict.CONFIRMED if incoming_at > stored_at else Verdict.DUPLICATE
    if incoming_at > stored_at:
        return Verdict.EDIT
    if same_text:
        return Verdict.DUPLICATE
    return Verdict.LATE if incoming_at < stored_at else Verdict.EDIT


#: What waits to be worked on: the index of what is unprocessed, and claims, have the same ones.
WAITING = frozenset({Status.RECEIVED, Status.RETRYING, Status.REPROCESS_PENDING})

NEXT: dict[Status, frozenset[Status]] = {
    Status.RECEIVED: frozenset(
        {Status.QUEUED, Status.RETRYING, Status.PUBLISHED, Status.FAILED, Status.REPROCESS_PENDING}
    ),
    Status.QUEUED: frozenset(
        {Status.RETRYING, Status.PUBLISHED, Status.FAILED, Status.REPROCESS_PENDING}
    ),
    Status.RETRYING: frozenset(
        {Status.QUEUED, Status.PUBLISHED, Status.FAILED, Status.REPROCESS_PENDING}
    ),
    Status.PUBLISHED: frozenset({Status.REPROCESS_PENDING}),
    Status.FAILED: frozenset({Status.QUEUED, Status.RETRYING, Status.REPROCESS_PENDING}),
    Status.REPROCESS_PENDING: frozenset(
        {Status.QUEUED, Status.RETRYING, Status.REPROCESSED, Status.FAILED}
    ),
    Status.REPROCESSED: frozenset({Status.REPROCESS_PENDING}),
    Status.DELETED: frozenset(),
}


def check_transition(message: Message, to: Status) -> bool:
    """Return whether `to` changes anything; marking twice does not.

    Raises `IllegalTransition` for a step that the life of a message does not allow, such as
    from published back to received. Deleting has its own call.
    """
    if message.status is to:
        return False
    if to in NEXT[message.status]:
        return True
    allowed = ", ".join(sorted(NEXT[message.status])) or "nothing"
    raise IllegalTransition(
        f"message {message.message_id} of channel {message.channel_id} is {message.status}: "
        f"it can become {allowed}, not {to}"
    )
