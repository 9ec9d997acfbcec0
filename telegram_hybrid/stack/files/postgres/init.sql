-- Roles, database and PgBouncer's password look-up. Run once, as superuser, in a new cluster:
--   psql -v ON_ERROR_STOP=1 -d postgres -f init.sql
-- The passwords are SCRAM verifiers (RFC 5803), from which nobody can log in.

CREATE ROLE telegram LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE
    PASSWORD '{{ database_verifier }}';
CREATE ROLE pgbouncer LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT CONNECTION LIMIT 10
    PASSWORD '{{ pooler_verifier }}';

-- The application owns its database, because it makes partitions and applies migrations.
CREATE DATABASE {{ database }} OWNER telegram ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE {{ database }} FROM PUBLIC;
GRANT CONNECT ON DATABASE {{ database }} TO pgbouncer;

\connect {{ database }}

-- auth_query: with the definer's rights, because only a superuser reads verifiers; for PgBouncer
-- alone, and never for a superuser's name.
CREATE SCHEMA pgbouncer;
REVOKE ALL ON SCHEMA pgbouncer FROM PUBLIC;
GRANT USAGE ON SCHEMA pgbouncer TO pgbouncer;
CREATE FUNCTION pgbouncer.lookup(name text) RETURNS TABLE (username text, password text)
    LANGUAGE sql STABLE STRICT SECURITY DEFINER
    SET search_path = pg_catalog
AS $$
    SELECT rolname::text, rolpassword
    FROM pg_authid
    WHERE rolname = name AND rolcanlogin AND NOT rolsuper AND NOT rolreplication
        AND coalesce(rolvaliduntil > now(), true)
$$;
REVOKE ALL ON FUNCTION pgbouncer.lookup(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgbouncer.lookup(text) TO pgbouncer;

-- What is preloaded and installed. Creating TimescaleDB without preloading it ends the connection.
SELECT format('CREATE EXTENSION IF NOT EXISTS %I', name)
FROM pg_available_extensions
WHERE name IN ('pg_stat_statements', 'timescaledb')
    AND name = ANY (string_to_array(
        replace(current_setting('shared_preload_libraries'), ' ', ''), ','))
ORDER BY name
\gexec
