"""The index of messages by their words, and the functions that it consists of."""

from __future__ import annotations

from sqlalchemy import DDL, Index, MetaData, event, func

from telegram_hybrid.schema.postgres.migrations.versions.r0019_search import FUNCTIONS


def messages_search(tables: MetaData) -> None:
    """Add the index `messages_search`, and have its functions made before the tables."""
    schema = str(tables.schema)
    for each in FUNCTIONS:
        statement = each.replace("{schema}", schema).replace("%", "%%")
        event.listen(tables, "before_create", DDL(statement))  # type: ignore[no-untyped-call]
    ours = getattr(func, schema)
    of = tables.tables[f"{schema}.messages"].c
    Index(
        "messages_search",
        ours.search_document(of.text, of.caption),
        ours.search_keys(of.sent_at, of.channel_id),
        postgresql_using="gin",
        postgresql_with={"gin_pending_list_limit": "1024"},
    )
