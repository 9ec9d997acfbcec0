"""What every save begins with, in one statement and planned once in a session."""

from alembic import context, op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

# The locks in the order of their keys, as every writer takes them. The transaction has its number
# before an event of it has one: relays rely on that. Behind the locks a statement of its own, which
# sees what was committed while it waited for them. By the key alone, whatever the planner believes
# of a table that was empty when it was asked: a plan is kept.
LOCK = """
CREATE OR REPLACE FUNCTION "{schema}".lock_keys(
    prefix text, channels bigint[], messages bigint[],
    OUT stored_under timestamptz, OUT version bigint, OUT moment timestamptz
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET enable_seqscan TO off SET plan_cache_mode TO force_generic_plan
AS $body$
BEGIN
    PERFORM pg_advisory_xact_lock(wanted.key)
    FROM (SELECT DISTINCT hashtextextended(prefix || channel, 0) AS key
          FROM unnest(channels) AS channel ORDER BY key) AS wanted;
    PERFORM pg_current_xact_id();
    RETURN QUERY
    SELECT (SELECT key.sent_at FROM "{schema}".message_keys AS key
            WHERE key.channel_id = wanted.channel AND key.message_id = wanted.message),
           nextval('"{schema}".message_version'), now()
    FROM unnest(channels, messages) WITH ORDINALITY AS wanted (channel, message, position)
    ORDER BY wanted.position;
END
$body$;
COMMENT ON FUNCTION "{schema}".lock_keys IS
    'Locks the channels of messages until the end of the transaction. Returns of each message, in '
    'their order, when it was sent if it is stored, a new version, and the time.';
"""


def upgrade() -> None:
    """Add the function; a library of before says the same in two statements."""
    op.execute(LOCK.replace("{schema}", context.config.attributes["schema"]))


def downgrade() -> None:
    """Remove it; the library before does not call it."""
    op.execute(
        'DROP FUNCTION "{schema}".lock_keys'.replace(
            "{schema}", context.config.attributes["schema"]
        )
    )
