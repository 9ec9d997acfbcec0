"""Events of somebody's own, versions of payloads, and what the broker said at each attempt."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Only the catalog changes: no row is written again.
UP = """
ALTER TABLE outbox
    ALTER COLUMN message_id DROP NOT NULL,
    ADD COLUMN schema_version integer NOT NULL DEFAULT 1,
    ADD COLUMN history jsonb;
ALTER TABLE dead_letters
    ALTER COLUMN message_id DROP NOT NULL,
    ADD COLUMN schema_version integer NOT NULL DEFAULT 1,
    ADD COLUMN history jsonb;
ALTER TABLE inbox ALTER COLUMN message_id DROP NOT NULL;
COMMENT ON COLUMN outbox.message_id IS
    'NULL: an event of somebody''s own, on the topic "type".';
"""

DOWN = """
DELETE FROM outbox WHERE message_id IS NULL OR schema_version <> 1;
DELETE FROM dead_letters WHERE message_id IS NULL OR schema_version <> 1;
DELETE FROM inbox WHERE message_id IS NULL;
ALTER TABLE outbox
    ALTER COLUMN message_id SET NOT NULL, DROP COLUMN schema_version, DROP COLUMN history;
ALTER TABLE dead_letters
    ALTER COLUMN message_id SET NOT NULL, DROP COLUMN schema_version, DROP COLUMN history;
ALTER TABLE inbox ALTER COLUMN message_id SET NOT NULL;
COMMENT ON COLUMN outbox.message_id IS NULL;
"""


def upgrade() -> None:
    """Add the columns."""
    op.execute(UP)


def downgrade() -> None:
    """Remove them, with the events that the library before it cannot read."""
    op.execute(DOWN)
