"""What was brought from the original system: for resuming, verifying and rolling back."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

LEGACY = """
CREATE TABLE legacy_batches (
    source          text NOT NULL,
    channel_id      bigint NOT NULL,
    after_id        bigint NOT NULL,
    upto_id         bigint NOT NULL,
    rows            bigint NOT NULL,
    messages        integer NOT NULL,
    brought         integer NOT NULL,
    revisions       integer NOT NULL,
    refused         bigint[] NOT NULL,
    first_version   bigint NOT NULL,
    brought_version bigint NOT NULL,
    last_version    bigint NOT NULL,
    brought_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT legacy_batches_pkey PRIMARY KEY (source, channel_id, after_id)
);
COMMENT ON TABLE legacy_batches IS
    'Transactions of migrate-legacy: which ids of a channel each brought, under which versions.';

CREATE TABLE legacy_channels (
    source     text NOT NULL,
    channel_id bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT legacy_channels_pkey PRIMARY KEY (source, channel_id)
);
COMMENT ON TABLE legacy_channels IS 'Channels that migrate-legacy has registered.';
"""


def upgrade() -> None:
    """Build the tables."""
    op.execute(LEGACY)


def downgrade() -> None:
    """Drop them: what was brought stays, and can no longer be rolled back."""
    op.execute("DROP TABLE legacy_channels")
    op.execute("DROP TABLE legacy_batches")
