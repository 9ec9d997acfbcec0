"""Into how many parts the outbox is split, and which of them a channel is in."""

#: For relays to share; fixed, because rows carry it.
SHARDS = 16


def shard_of(channel_id: int) -> int:
    """The outbox shard of a channel, 0 to SHARDS - 1: events of one channel stay together."""
    return channel_id % SHARDS
