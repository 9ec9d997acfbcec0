"""What every change of a status begins and ends with, one statement each."""

from alembic import context, op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

# The lock as every writer takes it, the transaction's number before an event has one (as in
# lock_keys), and behind them a statement of its own, which sees what was committed meanwhile.
# TimescaleDB decompresses whatever lies near what is changed, and stops a transaction that does so
# to 100,000 rows: two marks at both ends of a busy channel's week were too many. Where there is no
# such setting, nothing is set; else it is gone with the transaction. What was deleted before
# `deleted_from` was kept goes back to the last status that has a time.
LOCK = """
CREATE FUNCTION "{schema}".lock_messages(prefix text, of_channel bigint, ids bigint[])
RETURNS TABLE (
    channel_id bigint, message_id bigint, sent_at timestamptz, text text, caption text,
    entities jsonb, edited_at timestamptz, message_type text, source text, sender_id bigint,
    sender_name text, reply_to_id bigint, thread_id bigint, grouped_id bigint, media jsonb,
    metadata jsonb, status text, version bigint, received_at timestamptz, deleted_at timestamptz,
    delete_reason text, status_reason text,
    status_before text, next_version bigint, moment timestamptz, compressing boolean
)
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_column
DECLARE
    bounded boolean := current_setting('{limit}', true) IS NOT NULL;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(prefix || of_channel, 0));
    PERFORM pg_current_xact_id();
    IF bounded THEN
        PERFORM set_config('{limit}', '0', true);
    END IF;
    RETURN QUERY
    SELECT message.channel_id, message.message_id, message.sent_at, message.text, message.caption,
           message.entities, message.edited_at, message.message_type, message.source,
           message.sender_id, message.sender_name, message.reply_to_id, message.thread_id,
           message.grouped_id, message.media, message.metadata, message.status, message.version,
           message.received_at, message.deleted_at, message.delete_reason, message.status_reason,
           CASE WHEN message.deleted_at IS NOT NULL THEN
               coalesce(message.deleted_from,
                   CASE greatest(queued_at, published_at, failed_at, reprocess_requested_at,
                                 reprocessed_at)
                       WHEN reprocessed_at THEN 'reprocessed'
                       WHEN reprocess_requested_at THEN 'reprocess_pending'
                       WHEN published_at THEN 'published'
                       WHEN failed_at THEN 'failed'
                       WHEN queued_at THEN 'queued'
                       ELSE 'received'
                   END)
           END,
           nextval('"{schema}".message_version'), now(), bounded
    FROM "{schema}".read_messages(of_channel, ids, NULL) AS answer
    CROSS JOIN LATERAL (SELECT (answer.stored).*) AS message
    WHERE message.message_id IS NOT NULL;
END
$body$;
COMMENT ON FUNCTION "{schema}".lock_messages IS
    'Locks a channel until the end of the transaction, and returns those of its messages that are '
    'stored; of each the status that an undone deletion gives it, a new version, the time, and '
    'whether there may be compressed ones. Such may then be changed without a limit.';
"""

# A deletion leaves what was said with the status before it, which an undo brings back: what has
# been deleted is changed by nothing else. The least and the greatest as values close other
# partitions, and what TimescaleDB has compressed of other channels and times. (Which chunks an
# UPDATE concerns, TimescaleDB knows by their CHECK constraints alone.)
MARK = """
CREATE FUNCTION "{schema}".mark_messages(
    channels bigint[], ids bigint[], times timestamptz[], statuses text[], versions bigint[],
    reasons text[]
) RETURNS void
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode TO force_custom_plan AS $body$
#variable_conflict use_column
DECLARE
    least_channel bigint;
    most_channel bigint;
    least_id bigint;
    most_id bigint;
    first timestamptz;
    last timestamptz;
    changed bigint;
BEGIN
    SELECT min(of_channel), max(of_channel), min(id), max(id), min(at), max(at)
    INTO least_channel, most_channel, least_id, most_id, first, last
    FROM unnest(channels, ids, times) AS step (of_channel, id, at);
    UPDATE "{schema}".messages AS message SET
        status = step.to_status, version = step.new_version, updated_at = now(),
        queued_at = CASE WHEN deleted_at IS NULL AND to_status = 'queued'
            THEN now() ELSE queued_at END,
        published_at = CASE WHEN deleted_at IS NULL AND to_status = 'published'
            THEN now() ELSE published_at END,
        failed_at = CASE WHEN deleted_at IS NULL AND to_status = 'failed'
            THEN now() ELSE failed_at END,
        reprocess_requested_at = CASE WHEN deleted_at IS NULL AND to_status = 'reprocess_pending'
            THEN now() ELSE reprocess_requested_at END,
        reprocessed_at = CASE WHEN deleted_at IS NULL AND to_status = 'reprocessed'
            THEN now() ELSE reprocessed_at END,
        deleted_at = CASE to_status WHEN 'deleted' THEN now() END,
        delete_reason = CASE to_status WHEN 'deleted' THEN reason END,
        status_reason = CASE WHEN deleted_at IS NOT NULL OR to_status = 'deleted'
            THEN status_reason ELSE reason END
    FROM unnest(channels, ids, times, statuses, versions, reasons)
        AS step (of_channel, id, at, to_status, new_version, reason)
    WHERE message.channel_id = step.of_channel AND message.message_id = step.id
      AND message.sent_at = step.at
      AND message.channel_id BETWEEN least_channel AND most_channel
      AND message.message_id BETWEEN least_id AND most_id
      AND message.sent_at BETWEEN first AND last;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed <> cardinality(ids) THEN
        RAISE serialization_failure USING MESSAGE = format(
            '%s of %s messages were there no more', cardinality(ids) - changed, cardinality(ids));
    END IF;
END
$body$;
COMMENT ON FUNCTION "{schema}".mark_messages IS
    'Gives messages, each by its whole key, a status, version and reason; all or none. What was '
    'deleted comes back by it. The caller holds the locks of the channels.';
"""

LIMIT = "timescaledb.max_tuples_decompressed_per_dml_transaction"


def upgrade() -> None:
    """Add the functions; a library of before says the same in five statements."""
    for definition in (LOCK, MARK):
        schema = context.config.attributes["schema"]
        op.execute(definition.replace("{schema}", schema).replace("{limit}", LIMIT))


def downgrade() -> None:
    """Remove them; the library before does not call them."""
    for name in ("mark_messages", "lock_messages"):
        op.execute(f'DROP FUNCTION "{context.config.attributes["schema"]}".{name}')
