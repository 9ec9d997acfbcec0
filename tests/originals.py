"""The original system's tables, filled: duplicates, missing dates, odd words, deletions."""

from __future__ import annotations

from psycopg import Connection

#: The channels of `fill`, in turn.
CHANNELS = (-1001649127710, -1002000000001, -1002000000002)

TABLES = """
CREATE SCHEMA {schema};
CREATE TABLE {schema}.messages (
    id uuid NOT NULL DEFAULT gen_random_uuid(), channel_id text NOT NULL,
    message_id bigint NOT NULL, thread_id bigint, source text NOT NULL DEFAULT 'unknown',
    message_type text NOT NULL DEFAULT 'channel_post', text text, caption text, media_type text,
    media_refs jsonb DEFAULT '[]', status text NOT NULL DEFAULT 'received',
    received_at timestamptz NOT NULL, telegram_date timestamptz, published_at timestamptz,
    failed_at timestamptz, queued_at timestamptz, reprocess_requested_at timestamptz,
    reprocessed_at timestamptz, metadata jsonb DEFAULT '{{}}',
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    PRIMARY KEY (id, created_at), UNIQUE (channel_id, message_id, created_at)
);
CREATE TABLE {schema}.channels (
    id bigserial PRIMARY KEY, channel_id bigint NOT NULL UNIQUE, label text, description text,
    is_active boolean DEFAULT true, created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now()
);
"""

HYPERTABLE = """
SELECT create_hypertable('{schema}.messages', 'created_at',
                         chunk_time_interval => interval '1 day')
"""

# A minute between posts. Of every 20th message a second copy arrived 3 hours later; of every 40th
# with another text. One in 10 has no date, one in 50 is deleted, one in 100 has an odd status.
FILL = """
INSERT INTO {schema}.messages
    (channel_id, message_id, source, message_type, text, caption, media_type, media_refs, status,
     received_at, telegram_date, published_at, metadata, created_at, updated_at, deleted_at)
SELECT (ARRAY[{channels}])[1 + n % {width}]::text, n / {width} + 1,
       (ARRAY['bot', 'user_client', 'mtproto', 'telepathy'])[1 + n % 4],
       CASE WHEN n % 7 = 0 THEN 'channel_post_comment' ELSE 'channel_post' END,
       CASE WHEN n % 11 = 0 THEN NULL
            ELSE 'BUY BTCUSDT ' || n || ' 📈' || CASE copy WHEN 2 THEN edited ELSE '' END END,
       CASE WHEN n % 11 = 0 THEN 'a chart, ' || n || CASE copy WHEN 2 THEN edited ELSE '' END END,
       CASE WHEN n % 11 = 0 THEN 'photo' END,
       CASE WHEN n % 11 = 0 THEN jsonb_build_array(jsonb_build_object('file_id', 'file' || n))
            ELSE '[]' END,
       CASE WHEN n % 100 = 0 THEN 'done' WHEN n % 2 = 0 THEN 'published' ELSE 'received' END,
       sent + interval '2 seconds' + (copy - 1) * interval '3 hours',
       CASE WHEN n % 10 <> 0 THEN sent END,
       CASE WHEN n % 2 = 0 THEN sent + interval '6 seconds' END,
       jsonb_build_object('processed_by', 'gateway-' || n % 3, 'copy', copy),
       sent + interval '2 seconds' + (copy - 1) * interval '3 hours',
       sent + interval '1 minute' + (copy - 1) * interval '3 hours',
       CASE WHEN n % 50 = 1 THEN sent + interval '1 day' END
FROM generate_series({first}, {last}) AS n
CROSS JOIN LATERAL (
    SELECT timestamptz '2024-03-01 00:00Z' + n * interval '1 minute' AS sent,
           CASE WHEN n % 40 = 0 THEN ' (edited)' ELSE '' END AS edited
) AS facts
CROSS JOIN LATERAL generate_series(1, CASE WHEN n % 20 = 0 THEN 2 ELSE 1 END) AS copy
"""

REGISTER = """
INSERT INTO {schema}.channels (channel_id, label, is_active)
VALUES (-1001649127710, 'signals', true), (-1009999999999, 'quiet', false)
"""


def build(connection: Connection, schema: str, *, hypertable: bool = False) -> None:
    """Make the original's tables, empty."""
    connection.execute(TABLES.format(schema=schema))
    if hypertable:
        connection.execute(HYPERTABLE.format(schema=schema))


def fill(connection: Connection, schema: str, last: int, *, first: int = 1) -> None:
    """Store messages `first` to `last` over all channels, and register two channels."""
    channels = ", ".join(map(str, CHANNELS))
    width = len(CHANNELS)
    statement = FILL.format(schema=schema, channels=channels, width=width, first=first, last=last)
    connection.execute(statement)
    if first == 1:
        connection.execute(REGISTER.format(schema=schema))
    connection.commit()
