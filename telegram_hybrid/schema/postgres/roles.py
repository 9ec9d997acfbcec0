"""Roles of the database: an owner, a writer and a reader, each with what it needs and no more.

They are groups without a login: logins are made members of them. The owner owns the schema and all
in it. So partitions that a writer needs are made with the owner's rights, by functions of the
schema whose search path is fixed (PostgreSQL manual, "Writing SECURITY DEFINER Functions Safely").
"""

from __future__ import annotations

import re

from sqlalchemy import Connection

from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.schema.postgres.sql import sql

PREFIX = "telegram"
KINDS = ("owner", "writer", "reader")

#: What only the owner changes.
_FIXED = ("alembic_version", "status_transitions")
#: From which only the owner deletes rows: the record itself, and rows that are there for good.
_KEPT = (
    "channel_heads",
    "channel_migrations",
    "channels",
    "message_confirmations",
    "message_keys",
    "message_revisions",
    "message_rollups",
    "messages",
    "relay_shards",
)
#: Functions that a writer runs with the owner's rights.
_AS_OWNER = ("ensure_message_partition", "ensure_message_range")

_PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,47}")


def names(prefix: str) -> tuple[str, str, str]:
    """Return the names of owner, writer and reader. Raises `InvalidInput` naming the field."""
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise InvalidInput(
            "prefix", f"{prefix!r} is not a plain lower-case name of at most 48 characters"
        )
    owner, writer, reader = (f"{prefix}_{kind}" for kind in KINDS)
    return owner, writer, reader


def script(schema: str, prefix: str = PREFIX) -> str:
    """Return the SQL that makes the roles and gives them their rights; it may run any time again.

    For psql, or any client that runs several statements. It needs a login that may create roles,
    owns the schema or is a superuser, and may create a schema in the database if it is not there.
    """
    blocks = (block.replace("{schema}", schema).strip() for block in _blocks(prefix))
    return "\n\n".join(("BEGIN;", *(f"{block};" for block in blocks), "COMMIT;", ""))


def create(connection: Connection, schema: str, prefix: str = PREFIX) -> None:
    """Run `script` on a connection that is in a transaction."""
    for block in _blocks(prefix):
        connection.execute(sql(block, schema))


def settle(connection: Connection, schema: str) -> None:
    """After a migration: have the owner own what is new, and the others have their rights to it.

    Whoever of the owner's members, or which superuser, has migrated. Nothing happens in a schema
    for which no roles were made.
    """
    owner = connection.execute(sql(_MADE, schema)).scalar_one_or_none()
    if owner is not None:
        for block in _blocks(str(owner).removesuffix("_owner"))[1:]:
            connection.execute(sql(block, schema))


def _blocks(prefix: str) -> tuple[str, ...]:
    owner, writer, reader = names(prefix)
    filled = []
    for block in (_ROLES, _OWNERSHIP, _RIGHTS):
        for mark, value in (
            ("{names}", _NAMES),
            ("{owner}", owner),
            ("{writer}", writer),
            ("{reader}", reader),
            ("{fixed}", _array(_FIXED)),
            ("{kept}", _array(_KEPT)),
            ("{as_owner}", _array(_AS_OWNER)),
        ):
            block = block.replace(mark, value)
        filled.append(block)
    return tuple(filled)


def _array(values: tuple[str, ...]) -> str:
    return "ARRAY['" + "', '".join(values) + "']"


# `roles create` leaves default privileges of the owner in the schema.
_MADE = """
SELECT owner.rolname
FROM pg_namespace AS schema
JOIN pg_roles AS owner ON owner.oid = schema.nspowner
WHERE schema.nspname = '{schema}' AND owner.rolname LIKE '%\\_owner'
  AND EXISTS (SELECT FROM pg_default_acl AS given
              WHERE given.defaclrole = owner.oid AND given.defaclnamespace = schema.oid)
"""

_NAMES = """
    owner  CONSTANT name := '{owner}';
    writer CONSTANT name := '{writer}';
    reader CONSTANT name := '{reader}';
    thing  record;
""".strip("\n")

# Whoever owned the schema, and whoever runs this, become members of the owner: what they could do,
# they still can. USAGE, because one who may only administer a role is a member, too.
_ROLES = """
DO $roles$
DECLARE
{names}
    former oid := (SELECT nspowner FROM pg_namespace WHERE nspname = '{schema}');
BEGIN
    FOR thing IN SELECT name FROM unnest(ARRAY[owner, writer, reader]) AS name LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = thing.name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', thing.name);
        END IF;
    END LOOP;
    FOR thing IN
        SELECT rolname FROM pg_roles
        WHERE (oid = former OR rolname = current_user) AND rolname <> owner
          AND NOT pg_has_role(oid, owner, 'USAGE')
    LOOP
        EXECUTE format('GRANT %I TO %I', owner, thing.rolname);
    END LOOP;
    FOR thing IN SELECT name FROM unnest(ARRAY[owner, writer, reader]) AS name LOOP
        IF NOT has_database_privilege(thing.name, current_database(), 'CONNECT') THEN
            EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), thing.name);
        END IF;
    END LOOP;
    IF former IS NULL THEN
        EXECUTE format('CREATE SCHEMA "{schema}" AUTHORIZATION %I', owner);
    END IF;
END
$roles$
"""

# A continuous aggregate is a view over tables of TimescaleDB's own, and altered as a materialized
# one, which alters those. Only a superuser can give it away, because the owner may make nothing in
# their schema; else it stays with the member of the owner who has migrated. Indexes, and sequences
# of columns, follow their tables; what an extension made is its own.
_OWNERSHIP = """
DO $roles$
DECLARE
{names}
BEGIN
    IF EXISTS (SELECT FROM pg_namespace
               WHERE nspname = '{schema}' AND nspowner <> to_regrole(owner)) THEN
        EXECUTE format('ALTER SCHEMA "{schema}" OWNER TO %I', owner);
    END IF;
    FOR thing IN
        SELECT relname AS name, CASE
                   WHEN relkind = 'S' THEN 'SEQUENCE'
                   WHEN relkind = 'm' OR relkind = 'v' AND EXISTS (
                       SELECT FROM pg_rewrite AS rule
                       JOIN pg_depend ON classid = 'pg_rewrite'::regclass AND objid = rule.oid
                       JOIN pg_class AS source ON source.oid = refobjid
                       WHERE ev_class = it.oid
                         AND source.relnamespace = to_regnamespace('_timescaledb_internal'))
                   THEN 'MATERIALIZED VIEW'
                   WHEN relkind = 'v' THEN 'VIEW'
                   ELSE 'TABLE' END AS kind
        FROM pg_class AS it
        WHERE relnamespace = '"{schema}"'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
          AND relowner <> to_regrole(owner)
          AND NOT EXISTS (SELECT FROM pg_depend
                          WHERE classid = 'pg_class'::regclass AND objid = it.oid
                            AND (deptype = 'e' OR (relkind = 'S' AND deptype IN ('a', 'i'))))
    LOOP
        BEGIN
            EXECUTE format('ALTER %s "{schema}".%I OWNER TO %I', thing.kind, thing.name, owner);
        EXCEPTION WHEN insufficient_privilege THEN
            IF thing.kind <> 'MATERIALIZED VIEW' THEN
                RAISE;
            END IF;
        END;
    END LOOP;
    FOR thing IN
        SELECT oid::regprocedure AS name FROM pg_proc AS it
        WHERE pronamespace = '"{schema}"'::regnamespace AND proowner <> to_regrole(owner)
          AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass
                          AND objid = it.oid AND deptype = 'e')
    LOOP
        EXECUTE format('ALTER ROUTINE %s OWNER TO %I', thing.name, owner);
    END LOOP;
END
$roles$
"""

# Queries go through `messages`, so its partitions need no rights of their own; those that come
# later can be read like the rest.
_RIGHTS = """
DO $roles$
DECLARE
{names}
    rights text;
BEGIN
    EXECUTE format('REVOKE ALL ON SCHEMA "{schema}" FROM PUBLIC, %I, %I', writer, reader);
    EXECUTE format('GRANT USAGE ON SCHEMA "{schema}" TO %I, %I', writer, reader);
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA "{schema}"'
                   ' GRANT SELECT ON TABLES TO %I, %I', owner, writer, reader);
    FOR thing IN
        SELECT format('"{schema}".%I', relname) AS place, relname AS name, relkind AS kind,
               relispartition AS part
        FROM pg_class
        WHERE relnamespace = '"{schema}"'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
          AND pg_has_role(relowner, owner, 'USAGE') AND pg_has_role(relowner, 'USAGE')
    LOOP
        IF thing.kind = 'S' THEN
            EXECUTE format('REVOKE ALL ON SEQUENCE %s FROM PUBLIC, %I, %I',
                           thing.place, writer, reader);
            EXECUTE format('GRANT USAGE ON SEQUENCE %s TO %I', thing.place, writer);
            CONTINUE;
        END IF;
        rights := CASE
            WHEN thing.kind IN ('v', 'm') OR thing.part OR thing.name = ANY({fixed})
            THEN 'SELECT'
            WHEN thing.name = ANY({kept}) THEN 'SELECT, INSERT, UPDATE'
            ELSE 'SELECT, INSERT, UPDATE, DELETE' END;
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, %I, %I', thing.place, writer, reader);
        EXECUTE format('GRANT SELECT ON %s TO %I', thing.place, reader);
        EXECUTE format('GRANT %s ON %s TO %I', rights, thing.place, writer);
    END LOOP;
    FOR thing IN
        SELECT oid::regprocedure AS place, proname = ANY({as_owner}) AS ours
        FROM pg_proc
        WHERE pronamespace = '"{schema}"'::regnamespace AND proowner = to_regrole(owner)
          AND (prosecdef OR proname = ANY({as_owner}))
    LOOP
        EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC, %I, %I',
                       thing.place, writer, reader);
        IF thing.ours THEN
            EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER', thing.place);
            EXECUTE format('ALTER FUNCTION %s SET search_path TO "{schema}", pg_temp',
                           thing.place);
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', thing.place, writer);
        END IF;
    END LOOP;
END
$roles$
"""
