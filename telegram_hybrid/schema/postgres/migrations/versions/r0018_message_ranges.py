"""Partitions of any length: whatever is missing in a range of time is made."""

from alembic import context, op

from telegram_hybrid.schema.postgres.migrations.versions.r0001_main_tables import ENSURE, MONTH

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

RANGE = (
    ENSURE.replace("{name}", '"{schema}".ensure_message_range(first timestamptz, next timestamptz)')
    .replace("{plain}", '"{schema}".ensure_message_range')
    .replace("{kind}", "integer")
    .replace("{answer}", "made")
    .replace("{declared}", "low timestamptz := first;")
    .replace(
        "{comment}",
        "Make the partitions, or chunks, of messages that are missing from one time to another;"
        " return how many.",
    )
)


def upgrade() -> None:
    """Add the function. That of whole months, which the library before calls, leaves out what is
    there: in schemas that earlier releases made it refuses months of several parts."""
    schema = context.config.attributes["schema"]
    op.execute(MONTH.replace("{schema}", schema))
    op.execute(RANGE.replace("{schema}", schema))
    for name in ("ensure_message_partition", "ensure_message_range"):
        op.execute(f'ALTER FUNCTION {name} SET search_path TO "{schema}", pg_temp')


def downgrade() -> None:
    """Remove it. The other stays as it is: the older one would refuse what is there now."""
    op.execute("DROP FUNCTION ensure_message_range")
