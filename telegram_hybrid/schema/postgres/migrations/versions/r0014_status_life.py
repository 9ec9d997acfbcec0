"""The life of a message, held by the database: its steps, reasons, and the way back."""

from alembic import context, op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE messages ADD COLUMN status_reason text, ADD COLUMN deleted_from text;
COMMENT ON COLUMN messages.status_reason IS
    'What was said with the status; of a deleted message, with the one before.';
COMMENT ON COLUMN messages.deleted_from IS
    'The status before the deletion, to which an undo goes back. A trigger writes it.';

ALTER TABLE message_revisions ADD COLUMN reason text,
    ADD CONSTRAINT message_revisions_reason_known
        CHECK (reason IN ('edit', 'late_edit', 'legacy_merge'));
"""

STEPS = """
CREATE TABLE status_transitions (
    status text NOT NULL,
    next   text NOT NULL,
    CONSTRAINT status_transitions_pkey PRIMARY KEY (status, next)
);
COMMENT ON TABLE status_transitions IS
    'Which status of a message may follow which. From deleted, only the status before it may.';
INSERT INTO status_transitions (status, next) VALUES
    ('received', 'queued'), ('received', 'retrying'), ('received', 'published'),
    ('received', 'failed'), ('received', 'reprocess_pending'), ('received', 'deleted'),
    ('queued', 'retrying'), ('queued', 'published'), ('queued', 'failed'),
    ('queued', 'reprocess_pending'), ('queued', 'deleted'),
    ('retrying', 'queued'), ('retrying', 'published'), ('retrying', 'failed'),
    ('retrying', 'reprocess_pending'), ('retrying', 'deleted'),
    ('published', 'reprocess_pending'), ('published', 'deleted'),
    ('failed', 'queued'), ('failed', 'retrying'), ('failed', 'reprocess_pending'),
    ('failed', 'deleted'),
    ('reprocess_pending', 'queued'), ('reprocess_pending', 'retrying'),
    ('reprocess_pending', 'reprocessed'), ('reprocess_pending', 'failed'),
    ('reprocess_pending', 'deleted'),
    ('reprocessed', 'reprocess_pending'), ('reprocessed', 'deleted');
"""

# Saving a message does not name its status in an UPDATE, so it never comes here. What was deleted
# before this revision has no `deleted_from` and may go back to any status.
CHECK = """
CREATE FUNCTION check_status_step() RETURNS trigger
LANGUAGE plpgsql AS $body$
BEGIN
    IF OLD.status = 'deleted' THEN
        IF NEW.status <> OLD.deleted_from THEN
            RAISE EXCEPTION 'message % of channel % is deleted: it can be restored to %, not %',
                NEW.message_id, NEW.channel_id, OLD.deleted_from, NEW.status
                USING ERRCODE = 'TH001', SCHEMA = '{schema}', TABLE = 'messages',
                      COLUMN = 'status';
        END IF;
        NEW.deleted_from := NULL;
        RETURN NEW;
    END IF;
    IF NOT EXISTS (SELECT FROM "{schema}".status_transitions AS step
                   WHERE step.status = OLD.status AND step.next = NEW.status) THEN
        RAISE EXCEPTION 'message % of channel % is %: it cannot become %',
            NEW.message_id, NEW.channel_id, OLD.status, NEW.status
            USING ERRCODE = 'TH001', SCHEMA = '{schema}', TABLE = 'messages',
                  COLUMN = 'status', HINT = 'The steps that there are: status_transitions.';
    END IF;
    IF NEW.status = 'deleted' THEN
        NEW.deleted_from := OLD.status;
    END IF;
    RETURN NEW;
END
$body$;
COMMENT ON FUNCTION check_status_step IS
    'Refuses a change of status that is no step of status_transitions, by SQLSTATE TH001.';
CREATE TRIGGER messages_status_step BEFORE UPDATE OF status ON messages
FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION check_status_step();
"""


def upgrade() -> None:
    """Build it; the library before it takes no other steps, and gives no reasons."""
    op.execute(COLUMNS)
    op.execute(STEPS)
    op.execute(CHECK.replace("{schema}", context.config.attributes["schema"]))


def downgrade() -> None:
    """Take it down, with the reasons; deleted messages stay deleted."""
    op.execute("DROP TRIGGER messages_status_step ON messages")
    op.execute("DROP FUNCTION check_status_step")
    op.execute("DROP TABLE status_transitions")
    op.execute("ALTER TABLE message_revisions DROP COLUMN reason")
    op.execute("ALTER TABLE messages DROP COLUMN deleted_from, DROP COLUMN status_reason")
