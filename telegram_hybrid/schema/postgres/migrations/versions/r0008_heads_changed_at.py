"""When a channel was last written to: what a Redis that is back may not have been told of."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Build it."""
    op.execute("ALTER TABLE channel_heads ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now()")


def downgrade() -> None:
    """Take it down."""
    op.execute("ALTER TABLE channel_heads DROP COLUMN changed_at")
