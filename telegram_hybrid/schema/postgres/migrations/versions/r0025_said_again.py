"""When the stored content of a message was last said again: what is older comes late."""

from alembic import context, op

from telegram_hybrid.schema.postgres.migrations.versions.r0020_psql import UPSERT

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

# A table of its own: a new time is no change of the message, so its row stays, also where that is
# compressed. And a column of `message_keys` could not be added beside writers, who wait for a
# migration while they look at the keys.
TABLE = """
CREATE TABLE message_confirmations (
    channel_id bigint NOT NULL,
    message_id bigint NOT NULL,
    said_at    timestamptz NOT NULL,
    CONSTRAINT message_confirmations_pkey PRIMARY KEY (channel_id, message_id),
    CONSTRAINT message_confirmations_key_fkey FOREIGN KEY (channel_id, message_id)
        REFERENCES message_keys (channel_id, message_id) ON DELETE CASCADE
);
COMMENT ON TABLE message_confirmations IS
    'The latest edited_at with which the stored content of a message came again, where that was '
    'later than its own: an edit back to it, or a reaction. What is older than that comes late.';
"""

BEFORE = UPSERT[: UPSERT.index("COMMENT ON")].replace("CREATE FUN", "CREATE OR REPLACE FUN")

# What differs in upsert_message: as repositories.decisions.compare.
DIFFERENCES = (
    (
        """
    place timestamptz;
""",
        """
    place timestamptz;
    said timestamptz;
""",
    ),
    (
        """
        IF stored.text = $4 AND stored.caption IS NOT DISTINCT FROM $5 THEN
            RETURN 'duplicate';
        END IF;
        IF coalesce($6, '-infinity') < coalesce(stored.edited_at, '-infinity') THEN
""",
        """
        SELECT greatest(max(again.said_at), stored.edited_at, '-infinity') INTO said
        FROM "{schema}".message_confirmations AS again
        WHERE again.channel_id = $1 AND again.message_id = $2;
        IF stored.text = $4 AND stored.caption IS NOT DISTINCT FROM $5 THEN
            IF $6 > said THEN
                INSERT INTO "{schema}".message_confirmations (channel_id, message_id, said_at)
                VALUES ($1, $2, $6)
                ON CONFLICT (channel_id, message_id) DO UPDATE SET said_at = excluded.said_at;
            END IF;
            RETURN 'duplicate';
        END IF;
        IF coalesce($6, '-infinity') < said THEN
""",
    ),
)

AFTER = BEFORE
for was, becomes in DIFFERENCES:
    AFTER = AFTER.replace(was, becomes)


def upgrade() -> None:
    """Add the table, empty, and have psql's function know it, too."""
    op.execute(TABLE)
    op.execute(AFTER.replace("{schema}", context.config.attributes["schema"]))


def downgrade() -> None:
    """Put back what was there; the library before knows no such times."""
    op.execute(BEFORE.replace("{schema}", context.config.attributes["schema"]))
    op.execute("DROP TABLE message_confirmations")
