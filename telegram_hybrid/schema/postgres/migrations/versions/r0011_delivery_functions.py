"""What writers and relays say most often as functions: planned once in a session."""

from alembic import context, op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Tables are named with their schema, as in append_events. The transaction has its number before
# the event has its own: relays rely on that.
PUBLISH = """
CREATE FUNCTION publish_event(
    lock text, event_id uuid, type text, shard smallint, channel_id bigint, payload json,
    schema_version integer, traceparent text,
    OUT number bigint, OUT moment timestamptz
)
LANGUAGE plpgsql VOLATILE AS $body$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(lock, 0));
    PERFORM pg_current_xact_id();
    INSERT INTO "{schema}".outbox
        (shard, event_id, type, channel_id, payload, schema_version, traceparent, occurred_at)
    VALUES ($4, $2, $3, $5, $6, $7, $8, clock_timestamp())
    RETURNING id, occurred_at INTO number, moment;
END
$body$;
COMMENT ON FUNCTION publish_event IS
    'Locks the channel until the end of the transaction and writes an event that is no message''s. '
    'Returns its number and its time.';
"""

# Only by their indexes, whatever the planner believes of a table that was empty when it was asked:
# a plan is kept. `shard + 0`: so few rows are postponed that only their own index may find them;
# by the other one the planner would walk over all that waits, and over all that was deleted and
# not vacuumed.
#
# payload::text: the driver would parse the JSON only for us to write it again. A walk along the
# index for each shard, from its floor: neither the backlog's size nor what is deleted and not yet
# vacuumed costs anything. Pairs, because with `shard = ask.shard` the primary key gives the order,
# too, and the planner may take that: then a shard with little walks over those with much.
PENDING = """
CREATE FUNCTION pending_events(shards smallint[], floors bigint[], rooms integer[], known bigint[])
RETURNS TABLE (
    kind text, of_shard smallint, number bigint, name uuid, topic text, channel bigint,
    message bigint, body text, version integer, trace text, moment timestamptz, tries integer
)
LANGUAGE plpgsql VOLATILE SET enable_seqscan TO off SET enable_bitmapscan TO off AS $body$
BEGIN
    RETURN QUERY WITH frozen AS MATERIALIZED (
        SELECT shard, id, channel_id
        FROM "{schema}".outbox
        WHERE not_before > clock_timestamp() AND shard + 0 = ANY(shards)
    )
    SELECT 'event', ask.shard, event.*
    FROM unnest(shards, floors, rooms) AS ask (shard, floor, room)
    CROSS JOIN LATERAL (
        SELECT id, event_id, type, channel_id, message_id, payload::text AS payload,
               schema_version, traceparent, occurred_at, attempts
        FROM "{schema}".outbox AS event
        WHERE (event.shard, event.id) > (ask.shard, ask.floor)
          AND (event.shard, event.id) < (ask.shard + 1, 0)
          AND event.id <> ALL(known)
          AND event.channel_id <> ALL(ARRAY(SELECT channel_id FROM frozen))
        ORDER BY event.shard, event.id
        LIMIT ask.room
    ) AS event
    UNION ALL
    SELECT 'frozen', shard, min(id), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM frozen GROUP BY shard
    UNION ALL
    SELECT 'ended', NULL, pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
           NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL;
END
$body$;
COMMENT ON FUNCTION pending_events IS
    'What a relay may publish: of each shard up to so many events behind its floor, without those '
    'that are known and those of frozen channels; the first frozen event of each shard; and the '
    'number below which all transactions have ended.';
"""

# FOR SHARE: a relay that takes the shard over waits for this transaction, and one that has taken
# it over already is seen here. A deletion is not worth a wait for the disk.
DELETE = """
CREATE FUNCTION delete_events(
    holder text, shards smallint[], epochs bigint[], ids bigint[],
    OUT deleted bigint, OUT number text
)
LANGUAGE plpgsql VOLATILE SET enable_seqscan TO off AS $body$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    WITH ours AS MATERIALIZED (
        SELECT lease.shard
        FROM "{schema}".relay_shards AS lease
        JOIN unnest(shards, epochs) AS held (shard, epoch)
          ON held.shard = lease.shard AND held.epoch = lease.epoch
        WHERE lease.owner = holder
        FOR SHARE OF lease
    ), gone AS (
        DELETE FROM "{schema}".outbox
        WHERE id = ANY(ids) AND shard IN (SELECT shard FROM ours)
        RETURNING id
    )
    SELECT count(*), pg_current_xact_id()::text INTO deleted, number FROM gone;
END
$body$;
COMMENT ON FUNCTION delete_events IS
    'Deletes published events of shards that the relay still holds. Returns how many those were, '
    'and the number of this transaction.';
"""

FUNCTIONS = ("publish_event", "pending_events", "delete_events")


def upgrade() -> None:
    """Add them."""
    for definition in (PUBLISH, PENDING, DELETE):
        op.execute(definition.replace("{schema}", context.config.attributes["schema"]))


def downgrade() -> None:
    """Remove them; the library before did not call them."""
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION {name}")
