"""Functions and views for people with only psql: writing, looking, watching."""

from alembic import context, op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

# What the library does when it saves, for one message (repositories.saving, decisions.compare):
# under the lock of the channel, with a version drawn there, and the event in the same transaction.
# Redis hears of it from the relay, which invalidates what it publishes.
UPSERT = """
CREATE FUNCTION upsert_message(
    channel_id bigint, message_id bigint, sent_at timestamptz, text text DEFAULT '',
    caption text DEFAULT NULL, edited_at timestamptz DEFAULT NULL, source text DEFAULT 'unknown',
    message_type text DEFAULT 'channel_post', metadata jsonb DEFAULT '{}',
    sender_name text DEFAULT NULL, reply_to_id bigint DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql VOLATILE SET "TimeZone" TO 'UTC' AS $body$
#variable_conflict use_column
DECLARE
    given ALIAS FOR $3;
    fresh bigint;
    place timestamptz;
    stored "{schema}".messages;
    kind text;
BEGIN
    IF $1 IS NULL OR $1 = 0 OR abs($1) >= 4503599627370496 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'channel_id: expected a chat id, not 0';
    ELSIF $2 IS NULL OR $2 NOT BETWEEN 0 AND 4503599627370495 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'message_id: expected 0 up to 2^52 - 1';
    ELSIF given IS NULL OR given NOT BETWEEN '0001-01-02' AND '9999-12-30' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'sent_at: expected a time';
    ELSIF $6 NOT BETWEEN '0001-01-02' AND '9999-12-30' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'edited_at: expected a time';
    ELSIF $4 IS NULL OR length($4) > 65536 OR length($5) > 65536 THEN
        RAISE invalid_parameter_value
            USING MESSAGE = 'text, caption: expected at most 65536 characters';
    ELSIF ($7 = ANY('{bot,user_client,mtproto,desktop_export,unknown}')) IS NOT TRUE THEN
        RAISE invalid_parameter_value USING MESSAGE = format('source: %L is none', $7);
    ELSIF ($8 = ANY('{channel_post,channel_post_comment,message,service}')) IS NOT TRUE THEN
        RAISE invalid_parameter_value USING MESSAGE = format('message_type: %L is none', $8);
    ELSIF (jsonb_typeof($9) = 'object') IS NOT TRUE OR octet_length($9::text) > 262144 THEN
        RAISE invalid_parameter_value
            USING MESSAGE = 'metadata: expected a JSON object of at most 262144 bytes';
    ELSIF length($10) > 4096 OR $11 NOT BETWEEN 0 AND 4503599627370495 THEN
        RAISE invalid_parameter_value
            USING MESSAGE = 'sender_name: too long, or reply_to_id: no message id';
    END IF;
    PERFORM pg_advisory_xact_lock(
        hashtextextended('telegram_hybrid.channel.{schema}.' || $1::text, 0));
    PERFORM pg_current_xact_id();
    fresh := nextval('"{schema}".message_version');
    SELECT key.sent_at INTO place FROM "{schema}".message_keys AS key
    WHERE key.channel_id = $1 AND key.message_id = $2;
    IF place IS NOT NULL THEN
        SELECT message.* INTO stored FROM "{schema}".messages AS message
        WHERE message.channel_id = $1 AND message.message_id = $2 AND message.sent_at = place;
        IF stored.channel_id IS NULL THEN
            RETURN 'duplicate';  -- stored once and since retired
        END IF;
        IF stored.text = $4 AND stored.caption IS NOT DISTINCT FROM $5 THEN
            RETURN 'duplicate';
        END IF;
        IF coalesce($6, '-infinity') < coalesce(stored.edited_at, '-infinity') THEN
            PERFORM "{schema}".keep_revision($1, $2, fresh, $4, $5, $6, 'late_edit');
            RETURN 'duplicate';
        END IF;
        PERFORM "{schema}".keep_revision(
            $1, $2, stored.version, stored.text, stored.caption, stored.edited_at, 'edit');
        UPDATE "{schema}".messages AS message SET
            version = fresh, message_type = $8, text = $4, caption = $5, entities = '[]',
            edited_at = $6, sender_name = coalesce($10, message.sender_name),
            reply_to_id = coalesce($11, message.reply_to_id),
            metadata = message.metadata || $9, updated_at = now()
        WHERE message.channel_id = $1 AND message.message_id = $2 AND message.sent_at = place
        RETURNING message.* INTO stored;
        PERFORM "{schema}".append_events(
            json_build_array("{schema}".message_event('message.edited', stored)), '[]', 1, NULL);
        RETURN 'edited';
    END IF;
    place := date_bin('7 days', given, '1970-01-01');
    PERFORM "{schema}".ensure_message_range(place, place + interval '7 days');
    stored.channel_id := $1;
    stored.message_id := $2;
    stored.sent_at := given;
    stored.version := fresh;
    stored.source := $7;
    stored.message_type := $8;
    stored.text := $4;
    stored.caption := $5;
    stored.entities := '[]';
    stored.edited_at := $6;
    stored.sender_name := $10;
    stored.reply_to_id := $11;
    stored.media := '[]';
    stored.metadata := $9;
    stored.status := 'received';
    stored.received_at := now();
    PERFORM "{schema}".append_events(
        json_build_array("{schema}".message_event('message.received', stored)),
        json_build_array(to_json(stored)), 1, NULL);
    RETURN 'inserted';
END
$body$;
COMMENT ON FUNCTION upsert_message IS
    'Stores a message once, by the rules of the library: inserted, edited (the earlier content '
    'becomes a revision) or duplicate; with its event. Entities and media are for the library.';

CREATE FUNCTION keep_revision(
    of_channel bigint, of_message bigint, at_version bigint, words text, beside text,
    edited timestamptz, why text
) RETURNS void
LANGUAGE sql VOLATILE AS $body$
    INSERT INTO "{schema}".message_revisions
        (channel_id, message_id, version, text, caption, edited_at, reason)
    SELECT of_channel, of_message, at_version, words, beside, edited, why
    WHERE NOT EXISTS (
        SELECT FROM "{schema}".message_revisions AS known
        WHERE known.channel_id = of_channel AND known.message_id = of_message
          AND known.text = words AND known.caption IS NOT DISTINCT FROM beside
          AND known.edited_at IS NOT DISTINCT FROM edited)
$body$;

CREATE FUNCTION message_event(kind text, message messages) RETURNS json
LANGUAGE sql VOLATILE SET "TimeZone" TO 'UTC' AS $body$
    -- Shards and UUIDv7 as in the library: 48 bits of milliseconds, then version, chance, variant.
    SELECT json_build_object(
        'shard', (message.channel_id % 16 + 16) % 16,
        'event_id', CAST(encode(set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid()) PLACING substring(
                int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
            FROM 1 FOR 6), 52, 1), 53, 1), 'hex') AS uuid),
        'type', kind, 'channel_id', message.channel_id, 'message_id', message.message_id,
        'version', message.version, 'status', message.status,
        'payload', json_strip_nulls(json_build_object(
            'channel_id', message.channel_id, 'message_id', message.message_id,
            'sent_at', message.sent_at, 'text', message.text, 'caption', message.caption,
            'entities', message.entities, 'edited_at', message.edited_at,
            'message_type', message.message_type, 'source', message.source,
            'sender_id', message.sender_id, 'sender_name', message.sender_name,
            'reply_to_id', message.reply_to_id, 'thread_id', message.thread_id,
            'grouped_id', message.grouped_id, 'media', message.media,
            'metadata', message.metadata, 'status', message.status, 'version', message.version,
            'received_at', message.received_at, 'deleted_at', message.deleted_at,
            'delete_reason', message.delete_reason, 'status_reason', message.status_reason)))
$body$;

CREATE FUNCTION upsert_channel(
    channel_id bigint, title text DEFAULT NULL, username text DEFAULT NULL,
    label text DEFAULT NULL, description text DEFAULT NULL
) RETURNS channels
LANGUAGE sql VOLATILE AS $body$
    INSERT INTO "{schema}".channels AS known (channel_id, title, username, label, description)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (channel_id) DO UPDATE SET
        title = coalesce(excluded.title, known.title),
        username = coalesce(excluded.username, known.username),
        label = coalesce(excluded.label, known.label),
        description = coalesce(excluded.description, known.description),
        updated_at = now()
    RETURNING known.*
$body$;
COMMENT ON FUNCTION upsert_channel IS
    'Registers a channel, or brings it up to date: what is not given (NULL) stays.';
"""

# By key first, then by sent_at as a value, as the library reads: only the partitions concerned
# are opened. A plan that knows the times has to be made anew each time.
LOOK = """
CREATE FUNCTION recent_messages(channel_id bigint, lim integer DEFAULT 20) RETURNS SETOF messages
LANGUAGE plpgsql STABLE SET plan_cache_mode TO force_custom_plan AS $body$
#variable_conflict use_column
DECLARE
    ids bigint[];
    times timestamptz[];
BEGIN
    SELECT array_agg(key.message_id), array_agg(DISTINCT key.sent_at) INTO ids, times
    FROM (SELECT known.message_id, known.sent_at FROM "{schema}".message_keys AS known
          WHERE known.channel_id = $1
          ORDER BY known.message_id DESC LIMIT least(greatest($2, 0), 10000)) AS key;
    RETURN QUERY
    SELECT message.* FROM "{schema}".messages AS message
    WHERE message.channel_id = $1 AND message.message_id = ANY(ids) AND message.sent_at = ANY(times)
    ORDER BY message.message_id DESC;
END
$body$;
COMMENT ON FUNCTION recent_messages IS
    'The newest messages of a channel by message_id, deleted ones included.';

CREATE FUNCTION channel_activity(since timestamptz DEFAULT now() - interval '1 day')
RETURNS TABLE (
    channel_id bigint, title text, messages bigint, unprocessed bigint, failed bigint,
    deleted bigint, last_changed_at timestamptz
)
LANGUAGE sql STABLE AS $body$
    SELECT known.channel_id, known.title, coalesce(sum(hour.messages), 0)::bigint,
           coalesce(sum(hour.messages) FILTER (
               WHERE hour.status IN ('received', 'retrying')), 0)::bigint,
           coalesce(sum(hour.messages) FILTER (WHERE hour.status = 'failed'), 0)::bigint,
           coalesce(sum(hour.messages) FILTER (WHERE hour.status = 'deleted'), 0)::bigint,
           max(head.changed_at)
    FROM "{schema}".channels AS known
    LEFT JOIN "{schema}".channel_heads AS head USING (channel_id)
    LEFT JOIN "{schema}".message_statistics_hourly AS hour
        ON hour.channel_id = known.channel_id
       AND hour.bucket >= date_bin('1 hour', since, '1970-01-01 00:00:00+00')
    GROUP BY known.channel_id, known.title
    ORDER BY 3 DESC, 1
$body$;
COMMENT ON FUNCTION channel_activity IS
    'What each channel sent since the hour of a time, and how much of it is not processed.';

CREATE FUNCTION message_gaps(channel_id bigint, lim integer DEFAULT 100)
RETURNS TABLE (
    first_id bigint, last_id bigint, missing bigint, after timestamptz, before timestamptz
)
LANGUAGE sql STABLE AS $body$
    SELECT step.previous + 1, step.message_id - 1, step.message_id - step.previous - 1,
           step.previous_at, step.sent_at
    FROM (SELECT key.message_id, key.sent_at, lag(key.message_id) OVER ids AS previous,
                 lag(key.sent_at) OVER ids AS previous_at
          FROM "{schema}".message_keys AS key WHERE key.channel_id = $1
          WINDOW ids AS (ORDER BY key.message_id)) AS step
    WHERE step.message_id - step.previous > 1
    ORDER BY step.message_id LIMIT $2
$body$;
COMMENT ON FUNCTION message_gaps IS
    'Ids of a channel between two that are stored; they may never have been messages.';
"""

# Containment finds `{"processed_by": ..}` as well, so
# that no field of metadata needs an index of its own.
FIND = """
CREATE INDEX messages_metadata ON messages USING gin (metadata jsonb_path_ops);
CREATE FUNCTION find_messages(wanted jsonb, lim integer DEFAULT 100) RETURNS SETOF messages
LANGUAGE sql STABLE AS $body$
    SELECT message.* FROM "{schema}".messages AS message
    WHERE message.metadata @> wanted
    ORDER BY message.sent_at DESC LIMIT lim
$body$;
COMMENT ON FUNCTION find_messages IS 'The newest messages whose metadata contain this.';
"""

WATCH = """
CREATE VIEW monitor_storage AS
SELECT coalesce(parent.relname, class.relname) AS table, class.relname AS part,
       pg_get_expr(class.relpartbound, class.oid) AS bounds,
       greatest(class.reltuples, 0)::bigint AS rows_about,
       pg_table_size(class.oid) AS table_bytes, pg_indexes_size(class.oid) AS index_bytes,
       stat.n_dead_tup AS dead_rows, stat.last_autovacuum, stat.last_autoanalyze
FROM pg_class AS class
LEFT JOIN pg_inherits AS inherits ON inherits.inhrelid = class.oid
LEFT JOIN pg_class AS parent ON parent.oid = inherits.inhparent
LEFT JOIN pg_stat_all_tables AS stat ON stat.relid = class.oid
WHERE class.relkind = 'r'
  AND coalesce(parent.relnamespace, class.relnamespace) = CAST('{schema}' AS regnamespace);
COMMENT ON VIEW monitor_storage IS
    'Size in bytes and rows (an estimate) of each table, partition and chunk.';

CREATE VIEW monitor_indexes AS
SELECT coalesce(parent.relname, stat.relname) AS table, stat.indexrelname AS index,
       stat.idx_scan AS scans, stat.idx_tup_read AS entries_read,
       pg_relation_size(stat.indexrelid) AS bytes
FROM pg_stat_all_indexes AS stat
JOIN pg_class AS class ON class.oid = stat.relid
LEFT JOIN pg_inherits AS inherits ON inherits.inhrelid = class.oid
LEFT JOIN pg_class AS parent ON parent.oid = inherits.inhparent
WHERE coalesce(parent.relnamespace, class.relnamespace) = CAST('{schema}' AS regnamespace);
COMMENT ON VIEW monitor_indexes IS
    'How often each index was used since the statistics were reset, and its size in bytes.';

CREATE VIEW monitor_cache_hits AS
SELECT coalesce(parent.relname, stat.relname) AS table,
       sum(stat.heap_blks_hit + coalesce(stat.idx_blks_hit, 0))::bigint AS hits,
       sum(stat.heap_blks_read + coalesce(stat.idx_blks_read, 0))::bigint AS reads,
       round(sum(stat.heap_blks_hit + coalesce(stat.idx_blks_hit, 0))
             / nullif(sum(stat.heap_blks_hit + coalesce(stat.idx_blks_hit, 0)
                          + stat.heap_blks_read + coalesce(stat.idx_blks_read, 0)), 0), 4)
           AS hit_ratio
FROM pg_statio_all_tables AS stat
JOIN pg_class AS class ON class.oid = stat.relid
LEFT JOIN pg_inherits AS inherits ON inherits.inhrelid = class.oid
LEFT JOIN pg_class AS parent ON parent.oid = inherits.inhparent
WHERE coalesce(parent.relnamespace, class.relnamespace) = CAST('{schema}' AS regnamespace)
GROUP BY 1;
COMMENT ON VIEW monitor_cache_hits IS
    'Blocks that PostgreSQL found in its shared buffers, and those it had to ask for. Not Redis.';

CREATE VIEW monitor_outbox AS
SELECT lease.shard, lease.owner, lease.epoch, lease.expires_at,
       lease.expires_at > clock_timestamp() AS held, lease.floor,
       coalesce(waiting.events, 0) AS waiting, waiting.postponed, waiting.oldest_at,
       clock_timestamp() - waiting.oldest_at AS oldest_age
FROM relay_shards AS lease
LEFT JOIN (
    SELECT event.shard, count(*) AS events, min(event.occurred_at) AS oldest_at,
           count(*) FILTER (WHERE event.not_before > clock_timestamp()) AS postponed
    FROM outbox AS event GROUP BY event.shard) AS waiting USING (shard)
ORDER BY lease.shard;
COMMENT ON VIEW monitor_outbox IS
    'Each shard of the outbox: which relay holds it until when, and what waits in it.';

CREATE VIEW monitor_channels AS
SELECT known.channel_id, known.title, known.is_active, head.version, head.changed_at,
       newest.message_id AS newest_id, newest.sent_at AS newest_sent_at,
       coalesce(waiting.events, 0) AS unpublished, waiting.oldest_at AS unpublished_since,
       clock_timestamp() - waiting.oldest_at AS lag
FROM channels AS known
LEFT JOIN channel_heads AS head USING (channel_id)
LEFT JOIN LATERAL (
    SELECT key.message_id, key.sent_at FROM message_keys AS key
    WHERE key.channel_id = known.channel_id ORDER BY key.message_id DESC LIMIT 1) AS newest ON true
LEFT JOIN (
    SELECT event.channel_id, count(*) AS events, min(event.occurred_at) AS oldest_at
    FROM outbox AS event GROUP BY event.channel_id) AS waiting
    ON waiting.channel_id = known.channel_id;
COMMENT ON VIEW monitor_channels IS
    'Each channel: its newest message, and which of its events no broker has confirmed yet.';

CREATE FUNCTION monitor_slow_statements(lim integer DEFAULT 20)
RETURNS TABLE (calls bigint, total_ms double precision, mean_ms double precision, query text)
LANGUAGE plpgsql STABLE AS $body$
DECLARE
    place text;
BEGIN
    SELECT format('%I.pg_stat_statements', namespace.nspname) INTO place
    FROM pg_extension AS extension JOIN pg_namespace AS namespace
        ON namespace.oid = extension.extnamespace
    WHERE extension.extname = 'pg_stat_statements';
    IF place IS NULL
       OR current_setting('shared_preload_libraries') NOT LIKE '%pg_stat_statements%' THEN
        RAISE NOTICE 'pg_stat_statements is not installed: nothing is known of slow statements';
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT statement.calls, statement.total_exec_time, statement.mean_exec_time,
                statement.query
         FROM %s AS statement WHERE statement.query LIKE %L
         ORDER BY statement.total_exec_time DESC LIMIT %s', place, '%{schema}%', lim);
END
$body$;
COMMENT ON FUNCTION monitor_slow_statements IS
    'The statements on this schema that took most time, if pg_stat_statements is there.';
"""


def upgrade() -> None:
    """Add them, and an index for one; nothing else changes."""
    for definition in (UPSERT, LOOK, FIND, WATCH):
        op.execute(definition.replace("{schema}", context.config.attributes["schema"]))


def downgrade() -> None:
    """Remove them; the library itself calls none of them."""
    op.execute("DROP FUNCTION monitor_slow_statements")
    for view in ("channels", "outbox", "cache_hits", "indexes", "storage"):
        op.execute(f"DROP VIEW monitor_{view}")
    for function in (
        "find_messages",
        "message_gaps",
        "channel_activity",
        "recent_messages",
        "upsert_channel",
        "upsert_message",
        "message_event",
        "keep_revision",
    ):
        op.execute(f"DROP FUNCTION {function}")
    op.execute("DROP INDEX messages_metadata")
