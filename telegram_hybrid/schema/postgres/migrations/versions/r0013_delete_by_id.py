"""Published events are deleted by their ids, not by each of them in each shard."""

from alembic import context, op

from telegram_hybrid.schema.postgres.migrations.versions.r0011_delivery_functions import (
    DELETE as BEFORE,
)

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# `shard + 0`: by the index of shards the planner would look for every id in every shard that is
# held, or walk over all that waits in them.
AFTER = BEFORE.replace(
    "WHERE id = ANY(ids) AND shard IN (SELECT shard FROM ours)",
    "WHERE id = ANY(ids) AND shard + 0 = ANY(ARRAY(SELECT shard FROM ours))",
)


def upgrade() -> None:
    """Replace the function; the relays of the version before call it, too."""
    _replace(AFTER)


def downgrade() -> None:
    """Have it as it was."""
    _replace(BEFORE)


def _replace(definition: str) -> None:
    definition = definition.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
    op.execute(definition.replace("{schema}", context.config.attributes["schema"]))
