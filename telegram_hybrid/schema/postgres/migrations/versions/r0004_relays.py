"""Relays that live, so that they share the shards fairly."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Build it."""
    op.execute("""
CREATE TABLE relays (
    owner      text NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT relays_pkey PRIMARY KEY (owner)
)
""")


def downgrade() -> None:
    """Take it down."""
    op.execute("DROP TABLE relays")
