"""Claims: what waits to be worked on, given to one worker at a time and for a while."""

from alembic import context, op

from telegram_hybrid.schema.postgres.migrations.versions.r0014_status_life import CHECK as BEFORE

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

# Apart from `messages`: a claim changes no message, so it has no version and no event, and no row
# of a partition, or of a compressed chunk, is written or locked for it.
TABLE = """
CREATE TABLE message_claims (
    channel_id bigint NOT NULL,
    message_id bigint NOT NULL,
    claim_id   bigint NOT NULL,
    worker     text NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT message_claims_pkey PRIMARY KEY (channel_id, message_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE INDEX message_claims_expires_at ON message_claims (expires_at);
COMMENT ON TABLE message_claims IS
    'Which worker alone may settle a message, until when. Any change of its status ends it.';
COMMENT ON COLUMN message_claims.claim_id IS
    'Drawn from message_version, so that no claim ever has the number of an earlier one.';
"""

# The order is one that the primary key does not have: so it is this index that gives it.
INDEX = """
CREATE INDEX messages_unprocessed ON messages (channel_id, sent_at, message_id)
WHERE status IN ('received', 'retrying', 'reprocess_pending');
"""

# The statements that a claim ends with are those of the trigger: also who has only psql, and a
# library of the version before, ends it by changing the status.
AFTER = BEFORE.replace(
    "BEGIN\n",
    """BEGIN
    DELETE FROM "{schema}".message_claims
    WHERE channel_id = NEW.channel_id AND message_id = NEW.message_id;
""",
    1,
)

# One worker claims at a time, for milliseconds: the next one then sees what is taken, and gets as
# much as it asked for. Nobody waits here for whoever settles, who may take long: claims that have
# ended are taken back only if their rows are free (SKIP LOCKED). A claim that was settled is gone
# together with the status it had, so whoever does not see the one does not see the other.
#
# By the index of what waits alone, whatever the planner believed when it was asked first: from
# channel to channel (PostgreSQL wiki, "Loose indexscan"), and in each along the oldest. Whether
# one is claimed is asked of it alone: a NOT EXISTS would compare it with all claims of its channel.
# OFFSET 0 keeps the planner from walking over all messages with the few in an inner loop, which it
# does as long as it holds the partitions for empty.
CLAIM = """
CREATE FUNCTION claim_messages(
    of_worker text, most integer, seconds double precision, of_channels bigint[],
    since timestamptz,
    OUT number bigint, OUT until timestamptz, OUT stored "{schema}".messages
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET enable_seqscan TO off SET enable_bitmapscan TO off AS $body$
#variable_conflict use_column
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('telegram_hybrid.claims.{schema}', 0));
    WITH ended AS MATERIALIZED (
        SELECT channel_id, message_id FROM "{schema}".message_claims
        WHERE expires_at <= now()
        FOR UPDATE SKIP LOCKED
    )
    DELETE FROM "{schema}".message_claims AS claim USING ended
    WHERE claim.channel_id = ended.channel_id AND claim.message_id = ended.message_id;
    IF of_channels IS NULL THEN
        WITH RECURSIVE waiting (channel_id) AS (
            (SELECT channel_id FROM "{schema}".messages
             WHERE status IN ('received', 'retrying', 'reprocess_pending') AND sent_at >= since
             ORDER BY channel_id, sent_at, message_id LIMIT 1)
            UNION ALL
            SELECT (SELECT message.channel_id FROM "{schema}".messages AS message
                    WHERE status IN ('received', 'retrying', 'reprocess_pending')
                      AND sent_at >= since AND message.channel_id > waiting.channel_id
                    ORDER BY message.channel_id, sent_at, message_id LIMIT 1)
            FROM waiting WHERE waiting.channel_id IS NOT NULL
        )
        SELECT array_agg(channel_id) INTO of_channels FROM waiting
        WHERE channel_id IS NOT NULL
          AND NOT EXISTS (SELECT FROM "{schema}".channels AS channel
                          WHERE channel.channel_id = waiting.channel_id AND NOT is_active);
    END IF;
    until := clock_timestamp() + make_interval(secs => seconds);
    RETURN QUERY WITH oldest AS MATERIALIZED (
        SELECT channel_id, message_id, sent_at, nextval('"{schema}".message_version') AS claim_id
        FROM (
            SELECT found.*
            FROM unnest(of_channels) AS wanted (id)
            CROSS JOIN LATERAL (
                SELECT channel_id, message_id, sent_at FROM "{schema}".messages AS message
                WHERE message.channel_id = wanted.id AND message.sent_at >= since
                  AND message.status IN ('received', 'retrying', 'reprocess_pending')
                  AND (SELECT claim.claim_id FROM "{schema}".message_claims AS claim
                       WHERE claim.channel_id = message.channel_id
                         AND claim.message_id = message.message_id) IS NULL
                ORDER BY channel_id, sent_at, message_id
                LIMIT most
            ) AS found
            ORDER BY sent_at, channel_id, message_id
            LIMIT most
        ) AS found
    ), claimed AS (
        INSERT INTO "{schema}".message_claims
            (channel_id, message_id, claim_id, worker, expires_at)
        SELECT channel_id, message_id, claim_id, of_worker, until FROM oldest
    )
    SELECT claim_id, until, whole.message
    FROM oldest
    CROSS JOIN LATERAL (
        SELECT message FROM "{schema}".messages AS message
        WHERE message.channel_id = oldest.channel_id AND message.message_id = oldest.message_id
          AND message.sent_at = oldest.sent_at
        OFFSET 0
    ) AS whole
    ORDER BY oldest.sent_at, oldest.channel_id, oldest.message_id;
END
$body$;
COMMENT ON FUNCTION claim_messages IS
    'Gives a worker the oldest messages that wait and are claimed by nobody, for so many seconds.';
"""


def upgrade() -> None:
    """Build it. Building the index holds up writers, for as long as one reads all messages."""
    op.execute(TABLE)
    op.execute(INDEX)
    _replace_check(AFTER)
    op.execute(CLAIM.replace("{schema}", context.config.attributes["schema"]))


def downgrade() -> None:
    """Take it down; what is claimed waits for anybody again."""
    op.execute("DROP FUNCTION claim_messages")
    _replace_check(BEFORE)
    op.execute("DROP INDEX messages_unprocessed")
    op.execute("DROP TABLE message_claims")


def _replace_check(definition: str) -> None:
    function = definition.partition("CREATE TRIGGER")[0]
    function = function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
    op.execute(function.replace("{schema}", context.config.attributes["schema"]))
