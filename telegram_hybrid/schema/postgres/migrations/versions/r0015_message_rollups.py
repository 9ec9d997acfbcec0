"""Messages counted by hour, with how long they took to be published, as they are written."""

from alembic import context, op
from sqlalchemy import text

from telegram_hybrid.schema.postgres import timescale

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE message_rollups (
    channel_id     bigint NOT NULL,
    bucket         timestamptz NOT NULL,
    status         text NOT NULL,
    source         text NOT NULL,
    message_type   text NOT NULL,
    latency_bin    smallint NOT NULL,
    messages       bigint NOT NULL,
    latency_sum_us bigint,
    latency_min_us bigint,
    latency_max_us bigint,
    lowest_id      bigint NOT NULL,
    highest_id     bigint NOT NULL,
    CONSTRAINT message_rollups_pkey PRIMARY KEY
        (channel_id, bucket, status, source, message_type, latency_bin)
) WITH (fillfactor = 70);
CREATE INDEX message_rollups_bucket ON message_rollups USING brin (bucket);
COMMENT ON TABLE message_rollups IS
    'Messages by the hour (UTC) of sent_at, kept by triggers on messages. Read the views '
    'message_statistics_hourly and message_statistics_daily.';
"""

VIEWS = """
CREATE VIEW message_statistics_hourly AS
SELECT bucket, channel_id, status, source, message_type, latency_bin,
       messages, latency_sum_us, latency_min_us, latency_max_us
FROM message_rollups
WHERE messages <> 0;

CREATE VIEW message_statistics_daily AS
SELECT date_bin('1 day', bucket, '1970-01-01 00:00:00+00') AS bucket,
       channel_id, status, source, message_type, latency_bin,
       sum(messages)::bigint AS messages, sum(latency_sum_us)::bigint AS latency_sum_us,
       min(latency_min_us) AS latency_min_us, max(latency_max_us) AS latency_max_us
FROM message_statistics_hourly
GROUP BY 1, 2, 3, 4, 5, 6;
"""

COMMENTS = """
COMMENT ON VIEW message_statistics_hourly IS
    'How many messages of each channel were sent in an hour (UTC), by what they are, and how long '
    'they took from received_at to published_at, in microseconds. latency_bin: -1 not published, '
    'n: at least 1.1^n milliseconds.';
COMMENT ON VIEW message_statistics_daily IS
    'What message_statistics_hourly has, by day (UTC).';
"""

HOUR = "date_bin('1 hour', sent_at, '1970-01-01 00:00:00+00')"
# In microseconds; a year at most, so that the sum of an hour fits. It can come out negative: now()
# is when a transaction began, and the one that marks may have begun before the one that saved.
LATENCY = """
CASE WHEN published_at IS NOT NULL THEN
    least(greatest((date_part('epoch', published_at - received_at) * 1000000)::bigint, 0),
          31536000000000) END
"""
# By logarithm: a percentile is then known within 5 percent, whether it is milliseconds or days.
BIN = """
CASE WHEN latency IS NULL THEN -1
     ELSE floor(ln(greatest(latency, 1000) / 1000.0::double precision)
                / ln(1.1::double precision)) END::smallint
"""
KEY = "channel_id, bucket, status, source, message_type, latency_bin"
# What a row of messages counts as, without and with the bin of its latency.
COUNTED = f"channel_id, message_id, {HOUR} AS bucket, status, source, message_type, {LATENCY}"
BINNED = f"{KEY.removesuffix('latency_bin')} {BIN} AS latency_bin"

INSERTED = """
CREATE FUNCTION {prefix}count_inserted_messages() RETURNS trigger
LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO {prefix}message_rollups AS known (
        {key}, messages, latency_sum_us, latency_min_us, latency_max_us, lowest_id, highest_id)
    SELECT {binned}, count(*), sum(latency), min(latency), max(latency),
           min(message_id), max(message_id)
    FROM (SELECT {counted} AS latency FROM after_change) AS message
    GROUP BY 1, 2, 3, 4, 5, 6
    ORDER BY 1, 2, 3, 4, 5, 6
    ON CONFLICT ({key}) DO UPDATE SET
        messages = known.messages + EXCLUDED.messages,
        latency_sum_us = known.latency_sum_us + EXCLUDED.latency_sum_us,
        latency_min_us = least(known.latency_min_us, EXCLUDED.latency_min_us),
        latency_max_us = greatest(known.latency_max_us, EXCLUDED.latency_max_us),
        lowest_id = least(known.lowest_id, EXCLUDED.lowest_id),
        highest_id = greatest(known.highest_id, EXCLUDED.highest_id);
    RETURN NULL;
END
$body$;
"""

# What the statement changed, each latency of a row by itself: an edit moves nothing.
MOVED = """
        SELECT {binned}, latency, sum(sign) AS net,
               min(message_id) AS lowest_id, max(message_id) AS highest_id
        FROM ({changes}) AS message
        GROUP BY 1, 2, 3, 4, 5, 6, 7
        HAVING sum(sign) <> 0
"""
CHANGES = {
    "updated": """
            SELECT -1 AS sign, {counted} AS latency FROM before_change
            UNION ALL
            SELECT 1, {counted} FROM after_change
""",
    "deleted": "SELECT -1 AS sign, {counted} AS latency FROM before_change",
}

# The least and the greatest latency of a row can only be looked for once they go away: between
# its lowest and highest id, which finds its hour by the primary key.
CHANGED = """
CREATE FUNCTION {prefix}count_{kind}_messages() RETURNS trigger
LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO {prefix}message_rollups AS known (
        {key}, messages, latency_sum_us, latency_min_us, latency_max_us, lowest_id, highest_id)
    SELECT {key}, sum(net), sum(latency * net),
           min(latency) FILTER (WHERE net > 0), max(latency) FILTER (WHERE net > 0),
           min(lowest_id), max(highest_id)
    FROM ({moved}) AS moved
    GROUP BY {key}
    ORDER BY {key}
    ON CONFLICT ({key}) DO UPDATE SET
        messages = known.messages + EXCLUDED.messages,
        latency_sum_us = known.latency_sum_us + EXCLUDED.latency_sum_us,
        latency_min_us = least(known.latency_min_us, EXCLUDED.latency_min_us),
        latency_max_us = greatest(known.latency_max_us, EXCLUDED.latency_max_us),
        lowest_id = least(known.lowest_id, EXCLUDED.lowest_id),
        highest_id = greatest(known.highest_id, EXCLUDED.highest_id);

    IF EXISTS (SELECT FROM before_change WHERE published_at IS NOT NULL) THEN
        UPDATE {prefix}message_rollups AS known
        SET latency_min_us = truth.lowest, latency_max_us = truth.highest
        FROM (SELECT {key}, min(latency) AS lowest, max(latency) AS highest
              FROM ({moved}) AS moved
              WHERE net < 0 AND latency IS NOT NULL
              GROUP BY {key}) AS lost
        JOIN {prefix}message_rollups AS kept USING ({key})
        CROSS JOIN LATERAL (
            SELECT min(latency) AS lowest, max(latency) AS highest
            FROM (SELECT status, source, message_type, {latency} AS latency
                  FROM {prefix}messages AS stored
                  WHERE stored.channel_id = kept.channel_id
                    AND stored.message_id BETWEEN kept.lowest_id AND kept.highest_id
                    AND stored.sent_at >= kept.bucket
                    AND stored.sent_at < kept.bucket + interval '1 hour'
                    AND stored.published_at IS NOT NULL) AS message
            WHERE (status, source, message_type, {bin})
                = (kept.status, kept.source, kept.message_type, kept.latency_bin)
        ) AS truth
        WHERE (lost.lowest <= kept.latency_min_us OR lost.highest >= kept.latency_max_us)
          AND ({known_key}) = ({kept_key});
    END IF;
    RETURN NULL;
END
$body$;
"""

TRIGGERS = {
    "inserted": "INSERT ON messages REFERENCING NEW TABLE AS after_change",
    "updated": "UPDATE ON messages REFERENCING OLD TABLE AS before_change"
    " NEW TABLE AS after_change",
    "deleted": "DELETE ON messages REFERENCING OLD TABLE AS before_change",
}

# Named and spelled as the views on plain PostgreSQL. What is behind the last hour that was
# materialized is counted when it is asked for. Without data: it cannot be brought here, in a
# transaction; until the first refresh all of it is counted when asked for.
AGGREGATES = """
CREATE MATERIALIZED VIEW message_statistics_hourly
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT {timescale}.time_bucket('1 hour', sent_at) AS bucket,
       channel_id, status, source, message_type, ({bin_of_latency}) AS latency_bin,
       count(*) AS messages, sum({latency})::bigint AS latency_sum_us,
       min({latency}) AS latency_min_us, max({latency}) AS latency_max_us
FROM messages
GROUP BY 1, 2, 3, 4, 5, 6
WITH NO DATA;

CREATE MATERIALIZED VIEW message_statistics_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT {timescale}.time_bucket('1 day', bucket) AS bucket,
       channel_id, status, source, message_type, latency_bin,
       sum(messages)::bigint AS messages, sum(latency_sum_us)::bigint AS latency_sum_us,
       min(latency_min_us) AS latency_min_us, max(latency_max_us) AS latency_max_us
FROM message_statistics_hourly
GROUP BY 1, 2, 3, 4, 5, 6
WITH NO DATA;
"""

BACKFILL = """
INSERT INTO message_rollups (
    {key}, messages, latency_sum_us, latency_min_us, latency_max_us, lowest_id, highest_id)
SELECT {binned}, count(*), sum(latency), min(latency), max(latency),
       min(message_id), max(message_id)
FROM (SELECT {counted} AS latency FROM messages) AS message
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY 2, 1
"""


def upgrade() -> None:
    """Add the table, what keeps it, and what there is to count already.

    The triggers come first: they wait for writers, and keep new ones waiting until the commit.
    Where messages are a hypertable, and continuous aggregates can be had, they do all that.
    """
    found = timescale.storage(op.get_bind(), context.config.attributes["schema"])
    if found.aggregates:
        op.execute(_filled(AGGREGATES, timescale_schema=found.timescale.schema or ""))
        op.execute(COMMENTS)
        return
    op.execute(TABLE)
    op.execute(VIEWS)
    op.execute(COMMENTS)
    for kind, event in TRIGGERS.items():
        op.execute(_filled(INSERTED if kind == "inserted" else CHANGED, kind))
        op.execute(
            f"COMMENT ON FUNCTION count_{kind}_messages IS"
            f" 'Keeps message_rollups when messages are {kind}.'"
        )
        op.execute(
            f"CREATE TRIGGER count_{kind} AFTER {event} FOR EACH STATEMENT"
            f" EXECUTE FUNCTION count_{kind}_messages()"
        )
    op.execute(_filled(BACKFILL))


def downgrade() -> None:
    """Remove them; the counts of messages that are still stored come back with an upgrade."""
    if op.get_bind().execute(text("SELECT to_regclass('message_rollups')")).scalar() is None:
        op.execute("DROP MATERIALIZED VIEW message_statistics_daily")
        op.execute("DROP MATERIALIZED VIEW message_statistics_hourly")
        return
    for kind in TRIGGERS:
        # A hypertable that is compressed has given up one of them.
        op.execute(f"DROP TRIGGER IF EXISTS count_{kind} ON messages")
        op.execute(f"DROP FUNCTION count_{kind}_messages")
    op.execute("DROP VIEW message_statistics_daily")
    op.execute("DROP VIEW message_statistics_hourly")
    op.execute("DROP TABLE message_rollups")


def _filled(statement: str, kind: str = "inserted", timescale_schema: str = "") -> str:
    parts = {
        "moved": MOVED,
        "changes": CHANGES.get(kind, ""),
        "counted": COUNTED,
        "binned": BINNED,
        "bin": BIN,
        "bin_of_latency": BIN.replace("latency", LATENCY.strip()),
        "latency": LATENCY,
        "known_key": ", ".join(f"known.{name}" for name in KEY.split(", ")),
        "kept_key": ", ".join(f"kept.{name}" for name in KEY.split(", ")),
        "key": KEY,
        "kind": kind,
        "timescale": f'"{timescale_schema}"',
        "prefix": f'"{context.config.attributes["schema"]}".',
    }
    for name, part in parts.items():
        statement = statement.replace(f"{{{name}}}", part.strip())
    return statement
