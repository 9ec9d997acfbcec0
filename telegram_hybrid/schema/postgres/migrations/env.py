"""Alembic's environment: one transaction, one lock, on a connection that the caller opened.

Run only through `telegram_hybrid.schema.postgres.migrate`.
"""

from alembic import context
from sqlalchemy import text

from telegram_hybrid.schema.postgres import roles
from telegram_hybrid.schema.postgres.tables import metadata

settle = context.config.attributes["settle"]
connection = context.config.attributes["connection"]
schema = context.config.attributes["schema"]

context.configure(
    connection=connection,
    target_metadata=metadata(schema),
    version_table="alembic_version",
    version_table_schema=schema,
)
with context.begin_transaction():
    # Transaction-scoped, so that it is safe through a pooler and gone with a crash (P9).
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"),
        {"name": f"telegram_hybrid.migrate.{schema}"},
    )
    # Only then, because IF NOT EXISTS asks for the right to create one all the same.
    if connection.execute(text("SELECT to_regnamespace(:name)"), {"name": schema}).scalar() is None:
        connection.execute(text(f'CREATE SCHEMA "{schema}"'))
    if context.get_context().get_current_revision() != context.get_revision_argument():
        # Every writer of messages draws a version before it writes a row or calls a function that
        # a revision may replace: those who have drawn one end before this goes on, and others wait
        # for it there, so none is halfway through the functions of before. Readers draw none.
        connection.execute(text(f'ALTER SEQUENCE IF EXISTS "{schema}".message_version NO CYCLE'))
    # Revisions are written without a schema; LOCAL ends with this transaction.
    connection.execute(text(f'SET LOCAL search_path TO "{schema}"'))
    before = context.get_context().get_current_heads()
    context.run_migrations()
    if context.get_context().get_current_heads() != before:
        roles.settle(connection, schema)
    settle(connection)
