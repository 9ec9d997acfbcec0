"""Groups that became supergroups, and an index of what is deleted."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# A basic group's marked id is above -10^12, a supergroup's below: no chain and no circle fits in.
MIGRATIONS = """
CREATE TABLE channel_migrations (
    old_channel_id bigint NOT NULL,
    new_channel_id bigint NOT NULL,
    migrated_at    timestamptz,
    recorded_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT channel_migrations_pkey PRIMARY KEY (old_channel_id),
    CONSTRAINT channel_migrations_new_key UNIQUE (new_channel_id),
    CONSTRAINT channel_migrations_kinds CHECK (
        old_channel_id > -1000000000000 AND old_channel_id < 0
        AND new_channel_id < -1000000000000)
);
COMMENT ON TABLE channel_migrations IS
    'Basic groups that became supergroups: the history of the one goes on in the other.';
"""

# For counts of what is known to be deleted; a message that is not costs the test of its predicate.
DELETED = """
CREATE INDEX messages_deleted ON messages (channel_id) WHERE deleted_at IS NOT NULL;
"""


def upgrade() -> None:
    """Add both."""
    op.execute(MIGRATIONS)
    op.execute(DELETED)


def downgrade() -> None:
    """Remove them; the library before has no place for what the table holds."""
    op.execute("DROP INDEX messages_deleted")
    op.execute("DROP TABLE channel_migrations")
