"""What pollers call: what waits, claims on it, and settling those."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine

from telegram_hybrid.connect.postgres import reads
from telegram_hybrid.model import Claim, Message, Status, checks
from telegram_hybrid.repositories import claiming
from telegram_hybrid.repositories.arguments import (
    claims_of,
    distinct_channels,
    lease_seconds,
    markable,
    optional_instant,
    optional_reason,
    retry_seconds,
    worker_name,
)
from telegram_hybrid.repositories.batches import ROWS
from telegram_hybrid.repositories.marking import Marker
from telegram_hybrid.repositories.writing import Writer


class TransactionPolling:
    """Settling claims as a part of one transaction."""

    _connection: Connection
    _schema: str
    _writer: Writer

    def settle(
        self,
        claims: Claim | Iterable[Claim],
        status: Status,
        *,
        reason: str | None = None,
        retry_in: float = 0.0,
    ) -> list[Message]:
        """Give claimed messages their status and end the claims; see `Messages.settle`."""
        held, status = claims_of(claims), markable("status", status)
        reason, retry_in = optional_reason(reason), retry_seconds(retry_in, status)
        if not held:
            return []
        by_channel: dict[int, dict[int, Status]] = {}
        for each in held:
            by_channel.setdefault(each.message.channel_id, {})[each.message.message_id] = status
        self._writer.lock(set(by_channel))
        claiming.hold(self._writer, held)
        # All are decided on before any is moved: who goes on behind a refusal commits no half.
        moves = {
            channel_id: Marker(self._writer, channel_id).decide(statuses, reason, claimed=True)
            for channel_id, statuses in by_channel.items()
        }
        after = {channel_id: move() for channel_id, move in moves.items()}
        claiming.end(self._writer, held, retry_in)
        return [after[each.message.channel_id][each.message.message_id] for each in held]

    def pending(
        self,
        channel_id: int,
        *,
        limit: int = 100,
        since: datetime | None = None,
        include_claimed: bool = False,
    ) -> list[Message]:
        """Return messages that wait to be worked on, oldest first; see `Messages.pending`."""
        return claiming.pending(
            self._connection,
            self._schema,
            checks.channel_id("channel_id", channel_id),
            limit=checks.count("limit", limit),
            since=optional_instant("since", since),
            include_claimed=include_claimed,
        )


class MessagePolling:
    """Claims, and what waits to be claimed."""

    _engine: Engine
    _schema: str
    #: Runs what it is given in a transaction, which has these calls as its `messages`.
    _write: Callable[[Callable[[Any], Any]], Any]

    def pending(
        self,
        channel_id: int,
        *,
        limit: int = 100,
        since: datetime | None = None,
        include_claimed: bool = False,
    ) -> list[Message]:
        """Return messages of a channel that wait to be worked on, oldest first; not cached.

        Those are received, retrying or reprocess_pending, and claimed by nobody, unless
        `include_claimed`. `since` (aware) leaves out what was sent before: of a long history only
        the newer partitions are opened then.
        """
        checks.channel_id("channel_id", channel_id)
        checks.count("limit", limit)
        with reads(self._engine) as connection:
            return claiming.pending(
                connection,
                self._schema,
                channel_id,
                limit=limit,
                since=optional_instant("since", since),
                include_claimed=include_claimed,
            )

    def claim(
        self,
        worker: str,
        limit: int = 100,
        lease: float = 60.0,
        channels: Iterable[int] | None = None,
        *,
        since: datetime | None = None,
    ) -> list[Claim]:
        """Claim up to `limit` messages (at most 1,000) that wait, oldest first, for a poller.

        They are those of `pending`, of these channels, or of all active ones. For `lease` seconds
        nobody else gets them; then, if they were not settled, they wait again, so nothing is lost
        with a worker that dies. Its status changes only when it is settled: a claim changes no
        message and causes no event. Any number of workers may claim at once; each gets others.

        `worker` is a name for those who look (`message_claims`). `since` as in `pending`. When the
        connection breaks here, messages may be claimed that nobody got: they wait for the lease.
        """
        worker_name(worker)
        checks.count("limit", limit, least=1, most=ROWS)
        lease_seconds(lease)
        chosen = None if channels is None else distinct_channels(channels)
        since = optional_instant("since", since)
        if chosen == []:
            return []
        with reads(self._engine) as connection:
            return claiming.claim(
                connection,
                self._schema,
                worker,
                limit=limit,
                lease=lease,
                channels=chosen,
                since=since,
            )

    def renew(self, claims: Claim | Iterable[Claim], lease: float = 60.0) -> list[Claim]:
        """Have claims last `lease` seconds from now, and return them; what has ended is left out.

        Settle with what is returned, or with what `claim` returned: it is the same claim.
        """
        held = claims_of(claims)
        lease_seconds(lease)
        if not held:
            return []
        with reads(self._engine) as connection:
            return claiming.renew(connection, self._schema, held, lease)

    def release(self, claims: Claim | Iterable[Claim]) -> int:
        """Give claims back unsettled, so that others need not wait for their end.

        Return how many those were; what has ended is not ours to give back.
        """
        held = claims_of(claims)
        if not held:
            return 0
        with reads(self._engine) as connection:
            return claiming.release(connection, self._schema, held)

    def settle(
        self,
        claims: Claim | Iterable[Claim],
        status: Status,
        *,
        reason: str | None = None,
        retry_in: float = 0.0,
    ) -> list[Message]:
        """Move claimed messages to `status`, end the claims, and return the messages; as `mark`.

        With a status that waits, such as retrying, nobody claims the messages for `retry_in`
        seconds. All or none: raises `ClaimLost` if one of the claims has ended, since somebody
        else may have its message, and what `mark` raises. Within `hybrid.transaction()`, with
        `tx.messages.settle`, the work and its outcome commit together.
        """
        held, status = claims_of(claims), markable("status", status)
        reason, retry_in = optional_reason(reason), retry_seconds(retry_in, status)
        if not held:
            return []
        settled: list[Message] = self._write(
            lambda tx: tx.messages.settle(held, status, reason=reason, retry_in=retry_in)
        )
        return settled
