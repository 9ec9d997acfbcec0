"""Events and new messages from one JSON, a line each; and a short way for one event."""

from alembic import context, op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

# A new message is read from the payload of its event, which has all of it but what is as in most
# messages (model.message.compact): so it is sent, and parsed, once.
STORE = """
        WITH incoming AS (
            SELECT message.*
            FROM {payloads} AS message (
                channel_id bigint, message_id bigint, sent_at timestamptz, version bigint,
                source text, message_type text, text text, caption text, entities jsonb,
                edited_at timestamptz, sender_id bigint, sender_name text, reply_to_id bigint,
                thread_id bigint, grouped_id bigint, media jsonb, metadata jsonb)
        ), registered AS (
            INSERT INTO "{schema}".channels (channel_id) SELECT {distinct} channel_id FROM incoming
            ON CONFLICT DO NOTHING
        ), keyed AS (
            INSERT INTO "{schema}".message_keys (channel_id, message_id, sent_at)
            SELECT channel_id, message_id, sent_at FROM incoming
        )
        INSERT INTO "{schema}".messages (
            channel_id, message_id, sent_at, version, source, message_type, text, caption,
            entities, edited_at, sender_id, sender_name, reply_to_id, thread_id, grouped_id,
            media_type, media, metadata, status)
        SELECT channel_id, message_id, sent_at, version, coalesce(source, 'unknown'),
               coalesce(message_type, 'channel_post'), coalesce(text, ''), caption,
               coalesce(entities, '[]'), edited_at, sender_id, sender_name, reply_to_id,
               thread_id, grouped_id, media -> 0 ->> 'type', coalesce(media, '[]'),
               coalesce(metadata, '{}'), 'received'
        FROM incoming;
"""
ONE = STORE.replace("{payloads}", "json_to_record(payloads::json)").replace("{distinct} ", "")
# JSON has no newline of its own.
LINES = """(
                SELECT payload
                FROM unnest(string_to_array(payloads, E'\\n'), types) AS event (payload, type)
                WHERE type = 'message.received'
            ) AS event, json_to_record(event.payload::json)"""
MANY = STORE.replace("{payloads}", LINES).replace("{distinct}", "DISTINCT")

# One event, which most transactions have, goes by values: sets are more work than all of what is
# written with it. A head is read before it is raised, under its channel's lock.
APPEND = """
CREATE OR REPLACE FUNCTION "{schema}".append_changes(
    payloads text, event_ids uuid[], types text[], shards smallint[], channels bigint[],
    messages bigint[], versions bigint[], statuses text[], storing boolean,
    payload_version integer, trace text
) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_column
DECLARE
    moment timestamptz := clock_timestamp();
    head bigint;
    heads bigint[];
BEGIN
    IF cardinality(event_ids) = 1 THEN
        IF storing AND types[1] = 'message.received' THEN {one}
        END IF;
        INSERT INTO "{schema}".outbox
            (shard, event_id, type, channel_id, message_id, payload, schema_version, traceparent,
             occurred_at)
        VALUES (shards[1], event_ids[1], types[1], channels[1], messages[1], payloads::json,
                payload_version, trace, moment);
        SELECT version INTO head FROM "{schema}".channel_heads WHERE channel_id = channels[1];
        IF versions[1] > coalesce(head, 0) THEN
            INSERT INTO "{schema}".message_changes
                (channel_id, version, message_id, type, status, changed_at)
            VALUES (channels[1], versions[1], messages[1], types[1], statuses[1], moment);
            INSERT INTO "{schema}".channel_heads (channel_id, version, changed_at)
            VALUES (channels[1], versions[1], moment)
            ON CONFLICT (channel_id) DO UPDATE
            SET version = EXCLUDED.version, changed_at = EXCLUDED.changed_at;
        END IF;
        RETURN ARRAY[[channels[1], coalesce(head, 0)]];
    END IF;
    IF storing THEN {many}
    END IF;
    WITH event AS MATERIALIZED (
        SELECT * FROM unnest(string_to_array(payloads, E'\\n'), event_ids, types, shards, channels,
                             messages, versions, statuses) WITH ORDINALITY
            AS row (payload, event_id, type, shard, channel_id, message_id, version, status,
                    position)
    ), appended AS (
        INSERT INTO "{schema}".outbox
            (shard, event_id, type, channel_id, message_id, payload, schema_version, traceparent,
             occurred_at)
        SELECT shard, event_id, type, channel_id, message_id, payload::json, payload_version, trace,
               clock_timestamp()
        FROM event
        ORDER BY position
    ), reached AS MATERIALIZED (
        SELECT channel_id, max(version) AS version,
               coalesce((SELECT head.version FROM "{schema}".channel_heads AS head
                         WHERE head.channel_id = event.channel_id), 0) AS version_before
        FROM event GROUP BY channel_id
    ), logged AS (
        INSERT INTO "{schema}".message_changes
            (channel_id, version, message_id, type, status, changed_at)
        SELECT channel_id, event.version, message_id, type, status, clock_timestamp()
        FROM event JOIN reached USING (channel_id)
        WHERE event.version > reached.version_before
    ), raised AS (
        INSERT INTO "{schema}".channel_heads AS head (channel_id, version, changed_at)
        SELECT channel_id, version, clock_timestamp() FROM reached
        ON CONFLICT (channel_id) DO UPDATE
        SET version = EXCLUDED.version, changed_at = EXCLUDED.changed_at
        WHERE head.version < EXCLUDED.version
    )
    SELECT array_agg(ARRAY[channel_id, version_before]) INTO heads FROM reached;
    RETURN heads;
END
$body$;
COMMENT ON FUNCTION "{schema}".append_changes IS
    'Writes events of messages in their order, payloads as lines of JSON, and stores those that '
    'are new if told to. Returns each channel with its version before. The caller holds the locks '
    'of the channels.';
""".replace("{one}", ONE.rstrip()).replace("{many}", MANY.rstrip())


def upgrade() -> None:
    """Add the function; a library of before, and who has only psql, call `append_events`."""
    op.execute(APPEND.replace("{schema}", context.config.attributes["schema"]))


def downgrade() -> None:
    """Remove it; the library before does not call it."""
    op.execute(
        'DROP FUNCTION "{schema}".append_changes'.replace(
            "{schema}", context.config.attributes["schema"]
        )
    )
