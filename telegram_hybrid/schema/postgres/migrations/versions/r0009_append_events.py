"""New messages and the events of a transaction by a function: planned once in a session."""

from alembic import context, op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Its tables are named with their schema, so that neither a temporary table of the session nor a
# search path gets in between, for it or for triggers of others. A statement sees its tables as they
# were before it, so `heads` does not show in the answer.
APPEND = """
CREATE FUNCTION append_events(
    events json, new_messages json, payload_version integer, trace text,
    OUT of_channel bigint, OUT before bigint
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_column
BEGIN
    RETURN QUERY WITH incoming AS (
        SELECT * FROM json_to_recordset(new_messages) AS row (
            channel_id bigint, message_id bigint, sent_at timestamptz, version bigint, source text,
            message_type text, text text, caption text, entities jsonb, edited_at timestamptz,
            sender_id bigint, sender_name text, reply_to_id bigint, thread_id bigint,
            grouped_id bigint, media_type text, media jsonb, metadata jsonb)
    ), registered AS (
        INSERT INTO "{schema}".channels (channel_id) SELECT DISTINCT channel_id FROM incoming
        ON CONFLICT DO NOTHING
    ), keyed AS (
        INSERT INTO "{schema}".message_keys (channel_id, message_id, sent_at)
        SELECT channel_id, message_id, sent_at FROM incoming
    ), inserted AS (
        INSERT INTO "{schema}".messages (
            channel_id, message_id, sent_at, version, source, message_type, text, caption,
            entities, edited_at, sender_id, sender_name, reply_to_id, thread_id, grouped_id,
            media_type, media, metadata, status)
        SELECT incoming.*, 'received' FROM incoming
    ), event AS MATERIALIZED (
        SELECT * FROM ROWS FROM (json_to_recordset(events) AS (
            shard smallint, event_id uuid, type text, channel_id bigint, message_id bigint,
            payload json, version bigint)) WITH ORDINALITY
            AS row (shard, event_id, type, channel_id, message_id, payload, version, position)
    ), appended AS (
        INSERT INTO "{schema}".outbox
            (shard, event_id, type, channel_id, message_id, payload, schema_version, traceparent,
             occurred_at)
        SELECT shard, event_id, type, channel_id, message_id, payload, payload_version, trace,
               clock_timestamp()
        FROM event
        ORDER BY position
    ), reached AS (
        SELECT channel_id, max(version) AS version FROM event GROUP BY channel_id
    ), heads AS (
        INSERT INTO "{schema}".channel_heads AS head (channel_id, version, changed_at)
        SELECT channel_id, version, clock_timestamp() FROM reached
        ON CONFLICT (channel_id) DO UPDATE
        SET version = EXCLUDED.version, changed_at = EXCLUDED.changed_at
        WHERE head.version < EXCLUDED.version
    )
    SELECT channel_id, coalesce((SELECT head.version FROM "{schema}".channel_heads AS head
                                 WHERE head.channel_id = reached.channel_id), 0)
    FROM reached;
END
$body$;
COMMENT ON FUNCTION append_events IS
    'Stores new messages and writes events, of these and of others that changed, in their order. '
    'Returns the version of each channel before. The caller holds the locks of the channels.';
"""


def upgrade() -> None:
    """Add the function."""
    op.execute(APPEND.replace("{schema}", context.config.attributes["schema"]))


def downgrade() -> None:
    """Remove it; the library before it did not call it."""
    op.execute("DROP FUNCTION append_events")
