"""Floors of the outbox's shards, kept for the relay that holds them next."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them."""
    op.execute("ALTER TABLE relay_shards ADD COLUMN floor bigint NOT NULL DEFAULT 0")


def downgrade() -> None:
    """Remove them."""
    op.execute("ALTER TABLE relay_shards DROP COLUMN floor")
