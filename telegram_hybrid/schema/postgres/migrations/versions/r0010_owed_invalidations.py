"""Invalidations that a relay owes: for its successor, if it dies before Redis is back."""

from alembic import context, op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Apart from `channel_heads`, whose rows writers hold for as long as their transactions last.
OWED = """
CREATE TABLE owed_invalidations (
    channel_id bigint NOT NULL,
    owed_at    timestamptz NOT NULL,
    CONSTRAINT owed_invalidations_pkey PRIMARY KEY (channel_id)
);
COMMENT ON TABLE owed_invalidations IS
    'Channels with events that were published while Redis could not be told, and when that was.';
"""

FUNCTIONS = ("read_messages", "ensure_message_partition")


def upgrade() -> None:
    """Build the table; no temporary table of a session stands in for one of ours any more."""
    op.execute(OWED)
    schema = context.config.attributes["schema"]
    for name in FUNCTIONS:
        op.execute(f'ALTER FUNCTION {name} SET search_path TO "{schema}", pg_temp')


def downgrade() -> None:
    """Drop it, and have the functions as they were."""
    op.execute("DROP TABLE owed_invalidations")
    for name in FUNCTIONS:
        op.execute(f"ALTER FUNCTION {name} SET search_path FROM CURRENT")
