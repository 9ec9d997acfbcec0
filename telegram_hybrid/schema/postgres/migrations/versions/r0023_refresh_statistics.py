"""What continuous aggregates have counted of messages is brought up to date, by a job too."""

from alembic import context, op

from telegram_hybrid.schema.postgres import timescale

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# From the oldest chunk on: what was dropped before that would be wiped out. To the hour before the
# present one: an open end would hide what comes later. Only what was changed since is counted
# again, so a look at everything costs nothing, and a backfill of any age is found. The daily one
# twice: of several parts that the hourly one has just brought, it may leave the newest for next
# time (TimescaleDB 2.28).
REFRESH = """
CREATE PROCEDURE refresh_statistics(job_id integer DEFAULT NULL, config jsonb DEFAULT NULL)
LANGUAGE plpgsql AS $body$
DECLARE
    hour  timestamptz := date_trunc('hour', now() - interval '1 hour', 'UTC');
    day   timestamptz := date_trunc('day', now() - interval '1 hour', 'UTC');
    first timestamptz := (
        SELECT min(range_start) FROM timescaledb_information.chunks
        WHERE hypertable_schema = '{schema}' AND hypertable_name = 'messages');
BEGIN
    IF first + interval '1 hour' < hour THEN
        CALL {timescale}.refresh_continuous_aggregate(
            '"{schema}".message_statistics_hourly', first, hour);
        COMMIT;
    END IF;
    first := date_trunc('day', first, 'UTC');
    IF first < day THEN
        FOR turn IN 1..2 LOOP
            CALL {timescale}.refresh_continuous_aggregate(
                '"{schema}".message_statistics_daily', first, day);
            COMMIT;
        END LOOP;
    END IF;
END
$body$;
"""
NOTHING = """
CREATE PROCEDURE refresh_statistics(job_id integer DEFAULT NULL, config jsonb DEFAULT NULL)
LANGUAGE plpgsql AS $body$
BEGIN
END
$body$;
"""
COMMENT = """
COMMENT ON PROCEDURE refresh_statistics IS
    'Brings message_statistics_hourly and message_statistics_daily up to date, for TimescaleDB; '
    'elsewhere they always are.';
"""

# Not at once: a store that was just made has nothing to refresh.
JOB = """
SELECT {timescale}.add_job('refresh_statistics', interval '5 minutes',
                           initial_start => now() + interval '5 minutes')
"""


def upgrade() -> None:
    """Add what the server can do."""
    found = timescale.storage(op.get_bind(), context.config.attributes["schema"])
    if not found.aggregates:
        op.execute(NOTHING)
    else:
        for statement in (REFRESH, JOB):
            op.execute(_filled(statement, found))
    op.execute(COMMENT)


def downgrade() -> None:
    """Remove it, and its job with it; the library before did not call it."""
    op.execute("DROP PROCEDURE refresh_statistics CASCADE")


def _filled(statement: str, found: timescale.Storage) -> str:
    parts = {
        "timescale": f'"{found.timescale.schema}"',
        "schema": context.config.attributes["schema"],
    }
    for name, text in parts.items():
        statement = statement.replace(f"{{{name}}}", text.strip())
    return statement
