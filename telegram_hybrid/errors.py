"""The one tree of exceptions: catch `HybridError` for all, a branch for a kind.

Foreign exceptions (drivers, parsers) are wrapped where they enter and kept as `__cause__`.
No message ever holds a password or a URL with one in it.
"""

from __future__ import annotations

from collections.abc import Iterable


class HybridError(Exception):
    """Root of everything this library raises."""


class InvalidInput(HybridError, ValueError):
    """A value was refused before any I/O (promise P10).

    `field` names what was wrong ("sent_at"), `problem` says why, and `where`, if the value came
    from a file, says which file and which place in it ("result.json: messages[12]").
    """

    def __init__(self, field: str, problem: str, *, where: str | None = None) -> None:
        self.field = field
        self.problem = problem
        self.where = where
        super().__init__(f"{where}: {field}: {problem}" if where else f"{field}: {problem}")

    def at(self, where: str) -> InvalidInput:
        """Return the same error, told to have happened at `where`."""
        return type(self)(self.field, self.problem, where=where)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_invalid, (type(self), self.field, self.problem, self.where))


def _rebuild_invalid(
    kind: type[InvalidInput], field: str, problem: str, where: str | None
) -> InvalidInput:
    return kind(field, problem, where=where)


class InvalidFile(InvalidInput):
    """A file could not be read as what it should be: truncated, not an export, not JSON."""


class UnknownVersion(InvalidInput):
    """The payload of an event cannot be brought to the version that this process reads.

    `schema` is its topic, or "message", and `version` the one it has. A consumer keeps such an
    event as a dead letter, to be replayed when it can be read.
    """

    def __init__(
        self, schema: str, version: int, problem: str, *, where: str | None = None
    ) -> None:
        self.schema = schema
        self.version = version
        super().__init__("version", f"{schema} {version}: {problem}", where=where)
        self._told = problem

    def at(self, where: str) -> UnknownVersion:
        """Return the same error, told to have happened at `where`."""
        return type(self)(self.schema, self.version, self._told, where=where)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_unknown, (self.schema, self.version, self._told, self.where))


def _rebuild_unknown(schema: str, version: int, problem: str, where: str | None) -> UnknownVersion:
    return UnknownVersion(schema, version, problem, where=where)


class LegacyRefused(InvalidInput):
    """The original system's database, or rows of it, cannot be brought; nothing was written.

    `report` is the `telegram_hybrid.legacy.Migrated` of the check, or None if the tables
    themselves are no such.
    """

    def __init__(
        self, field: str, problem: str, *, where: str | None = None, report: object = None
    ) -> None:
        self.report = report
        super().__init__(field, problem, where=where)


class ConfigurationError(HybridError):
    """A setting is missing, malformed, or contradicts another; names the setting."""


class Closed(HybridError):
    """A `Hybrid` was used after its `close`."""


class MissingExtra(ConfigurationError, ImportError):
    """A feature needs an optional dependency; the message gives the `pip install` line."""


class CursorExpired(HybridError):
    """Changes behind the cursor of `messages.changes` are no longer kept: some would be missing.

    Of the channel `channel_id`, those up to `version`. To go on: take `changes("now").cursor`, then
    read the messages themselves, then poll with that cursor.
    """

    def __init__(self, channel_id: int, version: int) -> None:
        self.channel_id = channel_id
        self.version = version
        super().__init__(
            f"the cursor is older than the changes that are kept: those of channel {channel_id} up "
            f'to version {version} are forgotten. Begin with the cursor of changes("now"), then '
            "read the messages themselves"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.channel_id, self.version))


class NotFound(HybridError, LookupError):
    """A write named a message or channel that is not stored."""


class UnknownChannel(NotFound):
    """Messages of channels that are not registered, under the policy "refuse"; nothing was stored.

    `channel_ids` names the channels, in ascending order.
    """

    def __init__(self, channel_ids: Iterable[int]) -> None:
        self.channel_ids = tuple(sorted(channel_ids))
        shown = ", ".join(map(str, self.channel_ids[:10]))
        more = f" and {len(self.channel_ids) - 10} more" if len(self.channel_ids) > 10 else ""
        super().__init__(
            f"channel {shown}{more}: not registered, and unknown channels are refused; register it "
            "(channels.register, or `channels register` by command), or set "
            "TELEGRAM_UNKNOWN_CHANNELS=register"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.channel_ids,))


class MigrationConflict(HybridError):
    """Another migration of one of these chats is recorded; a group migrates once."""


class IllegalTransition(HybridError):
    """A status change that the life of a message does not allow.

    The database refuses it as well, to whoever asks: by SQLSTATE TH001.
    """


class TooManyDeletions(HybridError):
    """A call would delete more messages than it was allowed to; none was deleted.

    `at_most` is what was allowed.
    """

    def __init__(self, channel_id: int, at_most: int) -> None:
        self.channel_id = channel_id
        self.at_most = at_most
        super().__init__(
            f"channel {channel_id}: more than {at_most:,} messages would be deleted, so none was; "
            "if that is meant, say at_most=... or at_most=None"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.channel_id, self.at_most))


class ClaimLost(HybridError):
    """Claims had ended before they were settled, so none of that call was.

    Their time was up, or the message got another status meanwhile. Somebody else may have done
    the work, or do it now. `keys` are the messages, as (channel_id, message_id).
    """

    def __init__(self, keys: Iterable[tuple[int, int]]) -> None:
        self.keys = [(channel_id, message_id) for channel_id, message_id in keys]
        (channel_id, message_id), *others = self.keys
        more = f" and {len(others):,} more" if others else ""
        super().__init__(
            f"message {message_id} of channel {channel_id}{more}: the claim has ended, and nothing "
            "was settled; claim with a longer lease, or renew it in time"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.keys,))


class NestedWrite(HybridError):
    """A write beside an open transaction of the same thread, for whose lock it would never end."""


class ServiceError(HybridError):
    """A server failed us. `retryable` says whether the same call may simply be made again."""

    retryable: bool = False


class DatabaseError(ServiceError):
    """PostgreSQL refused or failed a statement; nothing of the transaction was kept."""


class DatabaseUnavailable(DatabaseError):
    """No connection to PostgreSQL could be had, or it broke before the commit was sent."""

    retryable = True


class CommitUnknown(DatabaseError):
    """The connection broke while a commit was under way: it may or may not have happened.

    Saving again is safe, because a message is stored once. Statements of your own in the same
    transaction would run a second time: look first, or make them safe to repeat.
    """

    retryable = True


class WriteConflict(DatabaseError):
    """Deadlock or serialization failure: the transaction was rolled back; run it again."""

    retryable = True


class SchemaMismatch(DatabaseError):
    """The database's schema is missing or at another revision; the message gives the command."""


class RedisUnavailable(ServiceError):
    """No connection to Redis could be had, or none that answered within the deadline."""

    retryable = True


class BrokerError(ServiceError):
    """The broker refused or failed an operation."""


class BrokerUnavailable(BrokerError):
    """No connection to the broker could be had, or it broke."""

    retryable = True


class TopologyConflict(BrokerError):
    """A queue or exchange of that name stands on the broker with other properties."""


class PublishRefused(BrokerError):
    """The broker returned (unroutable) or rejected (nack) an event."""


class EmbeddedError(ServiceError):
    """An embedded server could not be started or died; the message ends with its last log lines."""
