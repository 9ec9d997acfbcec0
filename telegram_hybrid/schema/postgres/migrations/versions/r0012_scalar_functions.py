"""What consumers say for every event as a function, and a cheaper one to publish by."""

from alembic import context, op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# One value, which a bare SELECT gives without a scan of the function. The transaction has its
# number before the event has its own: relays rely on that.
PUBLISH = """
CREATE FUNCTION append_event(
    lock text, event_id uuid, type text, shard smallint, channel_id bigint, payload json,
    schema_version integer, traceparent text
) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE AS $body$
DECLARE
    number bigint;
    moment timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(lock, 0));
    PERFORM pg_current_xact_id();
    INSERT INTO "{schema}".outbox
        (shard, event_id, type, channel_id, payload, schema_version, traceparent, occurred_at)
    VALUES ($4, $2, $3, $5, $6, $7, $8, clock_timestamp())
    RETURNING id, occurred_at INTO number, moment;
    RETURN ARRAY[number, (extract(epoch FROM moment) * 1000000)::bigint];
END
$body$;
COMMENT ON FUNCTION append_event IS
    'Locks the channel until the end of the transaction and writes an event that is no message''s. '
    'Returns its number and its time, in microseconds since 1970.';
"""

# In the order of their ids: two transactions with the same events never deadlock.
RECEIVE = """
CREATE FUNCTION receive_events(
    of_queue text, events uuid[], channels bigint[], messages bigint[]
) RETURNS SETOF uuid
LANGUAGE plpgsql VOLATILE AS $body$
BEGIN
    RETURN QUERY INSERT INTO "{schema}".inbox (queue, event_id, channel_id, message_id)
    SELECT of_queue, event.id, event.channel, event.message
    FROM unnest(events, channels, messages) AS event (id, channel, message)
    ORDER BY event.id
    ON CONFLICT DO NOTHING
    RETURNING event_id;
END
$body$;
COMMENT ON FUNCTION receive_events IS
    'Notes events as dealt with by the consumer of a queue; returns those that were not before.';
"""


def upgrade() -> None:
    """Add them; `publish_event` stays for writers that are not replaced yet."""
    for definition in (PUBLISH, RECEIVE):
        op.execute(definition.replace("{schema}", context.config.attributes["schema"]))


def downgrade() -> None:
    """Remove them; the library before did not call them."""
    op.execute("DROP FUNCTION receive_events")
    op.execute("DROP FUNCTION append_event")
