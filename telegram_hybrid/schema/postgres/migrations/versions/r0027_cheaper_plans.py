"""Messages by id without proofs about CHECK constraints in every plan."""

from alembic import context, op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

# A plan of `read_messages` is made for each call, and for each partition in it the planner tried to
# refute the query by what CHECK says of status and deletion: a sixth of a whole read. Which
# partitions are read is decided by their bounds, and TimescaleDB knows those of its chunks itself.
UPGRADE = 'ALTER FUNCTION "{schema}".read_messages SET constraint_exclusion TO off'
DOWNGRADE = 'ALTER FUNCTION "{schema}".read_messages RESET constraint_exclusion'


def upgrade() -> None:
    """Have it plan with less; it answers as before."""
    op.execute(UPGRADE.replace("{schema}", context.config.attributes["schema"]))


def downgrade() -> None:
    """Put back what was there."""
    op.execute(DOWNGRADE.replace("{schema}", context.config.attributes["schema"]))
