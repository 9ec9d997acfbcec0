"""Dead letters that were dealt with stay as history; the inbox is vacuumed by number of rows."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# The index is made for a table that is small where things go well; it is locked meanwhile.
UP = """
ALTER TABLE dead_letters
    ADD COLUMN settled_at timestamptz,
    ADD COLUMN outcome    text,
    ADD COLUMN note       text,
    ADD CONSTRAINT dead_letters_settled_whole CHECK (
        (settled_at IS NULL) = (outcome IS NULL)
        AND (outcome IN ('replayed', 'discarded') OR outcome IS NULL));
CREATE INDEX dead_letters_open ON dead_letters (channel_id, sequence, id)
    WHERE settled_at IS NULL;
ALTER TABLE inbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
"""

DOWN = """
DELETE FROM dead_letters WHERE settled_at IS NOT NULL;
ALTER TABLE dead_letters DROP COLUMN settled_at, DROP COLUMN outcome, DROP COLUMN note;
ALTER TABLE inbox RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
"""


def upgrade() -> None:
    """Add the columns and settings."""
    op.execute(UP)


def downgrade() -> None:
    """Remove them, and the letters that were dealt with."""
    op.execute(DOWN)
