"""A log of changes, for pollers: every change of a message, also when its event is published."""

from alembic import context, op

from telegram_hybrid.schema.postgres.migrations.versions.r0009_append_events import APPEND

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# What was stored before begins no log: its changes are known no more. So all that there is counts
# as forgotten, and a library that goes back and forward again tells its readers so. A writer that
# is in the function of before at this moment commits one more change that the log does not have.
TABLES = """
CREATE TABLE message_changes (
    channel_id bigint NOT NULL,
    version    bigint NOT NULL,
    message_id bigint NOT NULL,
    type       text NOT NULL,
    status     text,
    changed_at timestamptz NOT NULL,
    CONSTRAINT message_changes_pkey PRIMARY KEY (channel_id, version)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
COMMENT ON TABLE message_changes IS
    'Every change of a message, in the order of the commits of its channel.';

CREATE TABLE message_change_floors (
    channel_id bigint NOT NULL,
    version    bigint NOT NULL,
    CONSTRAINT message_change_floors_pkey PRIMARY KEY (channel_id)
);
COMMENT ON TABLE message_change_floors IS
    'Up to which version the changes of a channel are forgotten.';

INSERT INTO message_change_floors (channel_id, version)
SELECT channel_id, version FROM channel_heads;
"""

# A library of before gives no status. An event that is not above the channel's head tells of an old
# version once more, and is no change. `reached` sees the heads as they were before the statement.
LOGGED = """
CREATE OR REPLACE FUNCTION append_events(
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
            payload json, version bigint, status text)) WITH ORDINALITY
            AS row (shard, event_id, type, channel_id, message_id, payload, version, status,
                    position)
    ), appended AS (
        INSERT INTO "{schema}".outbox
            (shard, event_id, type, channel_id, message_id, payload, schema_version, traceparent,
             occurred_at)
        SELECT shard, event_id, type, channel_id, message_id, payload, payload_version, trace,
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
    ), heads AS (
        INSERT INTO "{schema}".channel_heads AS head (channel_id, version, changed_at)
        SELECT channel_id, version, clock_timestamp() FROM reached
        ON CONFLICT (channel_id) DO UPDATE
        SET version = EXCLUDED.version, changed_at = EXCLUDED.changed_at
        WHERE head.version < EXCLUDED.version
    )
    SELECT channel_id, version_before FROM reached;
END
$body$;
"""

# STABLE: all of it sees what the calling statement sees, so that what is forgotten meanwhile is
# either still there or told as such. A walk along the log's key for each channel that has moved,
# the one furthest behind first: no page costs more than its rows, and a busy channel keeps no other
# one waiting. By the key alone, whatever the planner believes of a log that was empty when it was
# asked: a plan is kept.
READ = """
CREATE FUNCTION read_changes(
    channels bigint[], versions bigint[], everywhere boolean, wanted bigint[], room integer
) RETURNS TABLE (
    kind text, of_channel bigint, at_version bigint, of_message bigint, change text,
    given_status text, moment timestamptz, stored_under timestamptz
)
LANGUAGE plpgsql STABLE SET enable_seqscan TO off SET enable_bitmapscan TO off AS $body$
DECLARE
    place record;
    found bigint;
BEGIN
    FOR place IN
        SELECT * FROM (
            SELECT channel_id, position.version IS NULL AS unknown,
                   coalesce(head.version, 0) AS head, coalesce(floor.version, 0) AS floor,
                   coalesce(position.version, CASE WHEN NOT everywhere THEN floor.version END, 0)
                       AS reached
            FROM "{schema}".channel_heads AS head
            LEFT JOIN "{schema}".message_change_floors AS floor USING (channel_id)
            FULL JOIN unnest(channels, versions) AS position (channel_id, version)
                USING (channel_id)
            WHERE wanted IS NULL OR channel_id = ANY(wanted)
        ) AS channel
        WHERE reached <> head OR reached < floor OR (unknown AND floor > 0)
        ORDER BY reached, channel_id
    LOOP
        of_channel := place.channel_id;
        IF place.reached > place.head THEN
            kind := 'ahead';
            at_version := place.head;
            RETURN NEXT;
        ELSIF place.reached < place.floor THEN
            kind := 'behind';
            at_version := place.floor;
            RETURN NEXT;
        ELSE
            IF place.unknown AND place.floor > 0 THEN
                kind := 'begun';
                at_version := place.floor;
                RETURN NEXT;
            END IF;
            IF room > 0 THEN
                RETURN QUERY
                SELECT 'change', log.channel_id, log.version, log.message_id, log.type, log.status,
                       log.changed_at,
                       (SELECT key.sent_at FROM "{schema}".message_keys AS key
                        WHERE key.channel_id = log.channel_id AND key.message_id = log.message_id)
                FROM "{schema}".message_changes AS log
                WHERE log.channel_id = place.channel_id AND log.version > place.reached
                ORDER BY log.version
                LIMIT room;
                GET DIAGNOSTICS found = ROW_COUNT;
                room := room - found;
            END IF;
        END IF;
    END LOOP;
END
$body$;
COMMENT ON FUNCTION read_changes IS
    'Changes behind the versions that a reader has been given of channels, up to so many; where '
    'channels begin of which it has none; and which of them are behind or ahead of what is kept.';
"""


def upgrade() -> None:
    """Build the log, and have every change written to it from now on."""
    op.execute(TABLES)
    _execute(LOGGED)
    _execute(READ)


def downgrade() -> None:
    """Drop it."""
    op.execute("DROP FUNCTION read_changes")
    _execute(APPEND.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    op.execute("DROP TABLE message_change_floors")
    op.execute("DROP TABLE message_changes")


def _execute(definition: str) -> None:
    op.execute(definition.replace("{schema}", context.config.attributes["schema"]))
