"""Messages by id in one statement, and what guards them in the cache."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Each statement of a volatile function has a snapshot of its own, later than those before it, but
# only where transactions are "read committed". A plan that knows the times opens only their
# partitions.
READ = """
CREATE FUNCTION read_messages(
    of_channel bigint, ids bigint[], lock_prefix text,
    OUT as_of bigint, OUT quiet boolean, OUT stored messages
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode TO force_custom_plan AS $body$
DECLARE
    times timestamptz[];
BEGIN
    as_of := 0;
    quiet := false;
    IF lock_prefix IS NOT NULL THEN
        SELECT version INTO as_of FROM channel_heads WHERE channel_id = of_channel;
        as_of := coalesce(as_of, 0);
        quiet := current_setting('transaction_isolation') = 'read committed'
            AND pg_try_advisory_xact_lock_shared(hashtextextended(lock_prefix || of_channel, 0));
    END IF;
    SELECT array_agg(DISTINCT key.sent_at) INTO times FROM message_keys AS key
    WHERE key.channel_id = of_channel AND key.message_id = ANY(ids);
    FOR stored IN
        SELECT message.* FROM messages AS message
        WHERE message.channel_id = of_channel AND message.message_id = ANY(ids)
          AND message.sent_at = ANY(times)
    LOOP
        RETURN NEXT;
    END LOOP;
    IF NOT FOUND THEN
        stored := NULL;
        RETURN NEXT;
    END IF;
END
$body$;
COMMENT ON FUNCTION read_messages IS
    'Messages of a channel by id. With the prefix of its lock: the version that the channel had '
    'just before, and whether no writer held the lock.';
"""


def upgrade() -> None:
    """Add the function."""
    op.execute(READ)


def downgrade() -> None:
    """Remove it; the library before it did not call it."""
    op.execute("DROP FUNCTION read_messages")
