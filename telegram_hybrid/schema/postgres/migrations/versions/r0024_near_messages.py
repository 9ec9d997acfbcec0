"""Messages by id through the primary key, however many they are, also before PostgreSQL 17."""

from alembic import context, op

from telegram_hybrid.schema.postgres.migrations.versions.r0005_read_messages import READ
from telegram_hybrid.schema.postgres.migrations.versions.r0020_psql import LOOK

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# As in r0005. But with a list of times beside a list of ids, PostgreSQL before 17 looks for each
# pair of the two, and for a hundred of each rather scans the whole partition. So near messages are
# read by a range of times, which closes the other partitions as well; far ones one by one, with the
# list only to close partitions (LIMIT keeps it out of the index).
NEAR = """
CREATE OR REPLACE FUNCTION read_messages(
    of_channel bigint, ids bigint[], lock_prefix text,
    OUT as_of bigint, OUT quiet boolean, OUT stored messages
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path TO "{schema}", pg_temp SET plan_cache_mode TO force_custom_plan AS $body$
DECLARE
    known bigint[];
    times timestamptz[];
    first timestamptz;
    last timestamptz;
BEGIN
    as_of := 0;
    quiet := false;
    IF lock_prefix IS NOT NULL THEN
        SELECT version INTO as_of FROM channel_heads WHERE channel_id = of_channel;
        as_of := coalesce(as_of, 0);
        quiet := current_setting('transaction_isolation') = 'read committed'
            AND pg_try_advisory_xact_lock_shared(hashtextextended(lock_prefix || of_channel, 0));
    END IF;
    SELECT array_agg(key.message_id), array_agg(key.sent_at), min(key.sent_at), max(key.sent_at)
    INTO known, times, first, last FROM message_keys AS key
    WHERE key.channel_id = of_channel AND key.message_id = ANY(ids);
    IF last - first <= interval '31 days' THEN
        FOR stored IN
            SELECT message.* FROM messages AS message
            WHERE message.channel_id = of_channel AND message.message_id = ANY(known)
              AND message.sent_at BETWEEN first AND last
        LOOP
            RETURN NEXT;
        END LOOP;
    ELSE
        FOR stored IN
            SELECT message.* FROM unnest(known, times) AS key (number, at)
            CROSS JOIN LATERAL (
                SELECT * FROM messages
                WHERE channel_id = of_channel AND message_id = number AND sent_at = at
                  AND sent_at = ANY(times)
                LIMIT 1) AS message
        LOOP
            RETURN NEXT;
        END LOOP;
    END IF;
    IF NOT FOUND THEN
        stored := NULL;
        RETURN NEXT;
    END IF;
END
$body$;
"""

RECENT = """
CREATE OR REPLACE FUNCTION recent_messages(channel_id bigint, lim integer DEFAULT 20)
RETURNS SETOF messages
LANGUAGE plpgsql STABLE SET plan_cache_mode TO force_custom_plan AS $body$
#variable_conflict use_column
DECLARE
    ids bigint[];
BEGIN
    SELECT array_agg(key.message_id) INTO ids
    FROM (SELECT known.message_id FROM "{schema}".message_keys AS known
          WHERE known.channel_id = $1
          ORDER BY known.message_id DESC LIMIT least(greatest($2, 0), 10000)) AS key;
    RETURN QUERY
    SELECT (answer.stored).* FROM "{schema}".read_messages($1, ids, NULL) AS answer
    WHERE (answer.stored).message_id IS NOT NULL
    ORDER BY (answer.stored).message_id DESC;
END
$body$;
"""


def upgrade() -> None:
    """Replace the functions; they answer as before."""
    for definition in (NEAR, RECENT):
        op.execute(definition.replace("{schema}", context.config.attributes["schema"]))


def downgrade() -> None:
    """Put back what was there."""
    schema = context.config.attributes["schema"]
    op.execute(READ.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    op.execute(f'ALTER FUNCTION read_messages SET search_path TO "{schema}", pg_temp')
    recent = LOOK[: LOOK.index("COMMENT ON")]
    recent = recent.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
    op.execute(recent.replace("{schema}", schema))
