"""Claim: a message that one worker alone may work on, for a while."""

from __future__ import annotations

from datetime import datetime

import attrs

from telegram_hybrid.model.message import Message


@attrs.frozen(slots=True, kw_only=True)
class Claim:
    """A message that `worker` alone may settle, until `expires_at` (UTC, the database's clock).

    `claim_id` tells this claim from earlier and later ones of the same message; later ones are
    higher.
    """

    message: Message
    worker: str
    claim_id: int
    expires_at: datetime
