"""The version of each channel: what the cache compares what it holds with."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE channel_heads (
    channel_id bigint NOT NULL,
    version    bigint NOT NULL,
    CONSTRAINT channel_heads_pkey PRIMARY KEY (channel_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
COMMENT ON TABLE channel_heads IS
    'The highest version that a commit gave to a message of the channel.';

INSERT INTO channel_heads (channel_id, version)
SELECT channel_id, max(version) FROM messages GROUP BY channel_id;
"""


def upgrade() -> None:
    """Add the table, and fill it from what is stored."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Remove the table; the library before it did not ask for it."""
    op.execute("DROP TABLE channel_heads")
