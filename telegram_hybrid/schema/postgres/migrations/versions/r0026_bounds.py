"""Bounds: what psql stores can be read by the library, and long texts can be indexed."""

from alembic import context, op

from telegram_hybrid.schema.postgres.migrations.versions.r0019_search import DOCUMENT
from telegram_hybrid.schema.postgres.migrations.versions.r0020_psql import LOOK
from telegram_hybrid.schema.postgres.migrations.versions.r0025_said_again import (
    AFTER as UPSERT_MESSAGE,
)

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

ACTIVITY = LOOK[
    LOOK.index("CREATE FUNCTION channel_activity") : LOOK.index("CREATE FUNCTION message_gaps")
]

# The library's own bounds (model.checks). One row that it cannot make a message of stopped whoever
# read past it: the newest of its channel, claims, and changes for good.
TIMES = ("NOT BETWEEN '0001-01-02' AND '9999-12-30'", "NOT BETWEEN '1970-01-01' AND '2099-12-31'")
TOLD = ("expected a time'", "expected a time from 1970 to 2099'")
# Of containers, whose level counts from 0. Numbers beyond: neither a float nor every int of Python.
METADATA = (
    "octet_length($9::text) > 262144 THEN",
    """octet_length($9::text) > 262144
        OR $9 @? 'strict $.**{256 to last} ? (@.type() == "object" || @.type() == "array")'
        OR $9 @? 'strict $.** ? (@.type() == "number" && (@ > 1e300 || @ < -1e300))' THEN""",
)
METADATA_TOLD = (
    "expected a JSON object of at most 262144 bytes'",
    "expected a JSON object of at most 262144 bytes, 256 levels, no number beyond 1e300'",
)
# What is there may be nearly as long, in the library's shorter spelling.
MERGED = (
    '        PERFORM "{schema}".keep_revision(\n            $1, $2, stored.version',
    """        IF $9 <> '{}' AND octet_length((stored.metadata || $9)::text) > 262144 THEN
            RAISE invalid_parameter_value
                USING MESSAGE = 'metadata: more than 262144 bytes with what is stored';
        END IF;
        PERFORM "{schema}".keep_revision(\n            $1, $2, stored.version""",
)

# A tsvector holds 1 MB: two Chinese characters and where they stand take at most 12 bytes.
SHORTENED = (
    """BEGIN
    RETURN to_tsvector('pg_catalog.simple',
                       "{schema}".search_words($1 || coalesce(E'\\n' || caption, '')));
""",
    """DECLARE
    content text := $1 || coalesce(E'\\n' || caption, '');
BEGIN
    IF octet_length(content) > 80000 THEN
        content := left(content, 80000);
    END IF;
    RETURN to_tsvector('pg_catalog.simple', "{schema}".search_words(content));
""",
)

# As claims and the index of what waits have it.
WAITING = ("IN ('received', 'retrying')", "IN ('received', 'retrying', 'reprocess_pending')")

CHANGED = (
    (UPSERT_MESSAGE, (TIMES, TOLD, METADATA, METADATA_TOLD, MERGED)),
    (DOCUMENT, (SHORTENED,)),
    (ACTIVITY, (WAITING,)),
)


def upgrade() -> None:
    """Replace the functions; what was stored and indexed before stays as it is."""
    for definition, changes in CHANGED:
        for before, after in changes:
            definition = definition.replace(before, after)
        _replace(definition)


def downgrade() -> None:
    """Put back what was there."""
    for definition, _ in CHANGED:
        _replace(definition)


def _replace(definition: str) -> None:
    definition = definition.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
    op.execute(definition.replace("{schema}", context.config.attributes["schema"]))
