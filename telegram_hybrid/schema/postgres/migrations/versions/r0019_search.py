"""Search: a GIN index of words, times and channels, and functions that walk it newest first."""

from alembic import context, op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

#: Scripts that put no spaces between words: Chinese characters, kana, hangul.
CJK = (
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)

# What the parser would take for one word ("BTC/USDT" for a path, "a.b" for a host, "-5" for a
# number, "<b" for a tag) falls apart, in messages and queries alike: chains of `replace` cost a
# fifth of `translate`. "比特币" becomes "比特 特币 币": each character but the last with the one
# behind it.
WORDS = """
CREATE FUNCTION "{schema}".search_words(content text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $body$
BEGIN
    content := replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
        content, '/', ' '), '.', ' '), ':', ' '), '@', ' '), '-', ' '), '+', ' '), '_', ' '),
        '<', ' '), 'ё', 'е'), 'Ё', 'Е');
    IF content ~ '[{cjk}]' THEN
        content := regexp_replace(content, '([{cjk}]+)', ' \\1 ', 'g');
        content := regexp_replace(content, '(?<=[{cjk}])([{cjk}])', '\\1 \\1', 'g');
    END IF;
    RETURN content;
END
$body$;
COMMENT ON FUNCTION "{schema}".search_words IS
    'A text for the parser of PostgreSQL, so that it finds the words that people see.';
""".replace("{cjk}", CJK)

DOCUMENT = """
CREATE FUNCTION "{schema}".search_document(text, caption text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $body$
BEGIN
    RETURN to_tsvector('pg_catalog.simple',
                       "{schema}".search_words($1 || coalesce(E'\\n' || caption, '')));
END
$body$;
COMMENT ON FUNCTION "{schema}".search_document IS 'The words of a message, as they are indexed.';
"""

# Beside the words in the same index: GIN looks only at what is of the wanted time and channel, so
# the newest of a million matches are found without the others. The kinds of keys differ by their
# last two bits: cells of 68 minutes, 36 hours and 49 days, and the channel.
KEYS = """
CREATE FUNCTION "{schema}".search_keys(sent_at timestamptz, channel_id bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $body$
DECLARE
    second bigint := floor(extract(epoch FROM sent_at));
BEGIN
    RETURN ARRAY[(second >> 12) * 4, (second >> 17) * 4 + 1, (second >> 22) * 4 + 2,
                 channel_id * 4 + 3];
END
$body$;
COMMENT ON FUNCTION "{schema}".search_keys IS
    'Keys of the cells of time that a message is in, and of its channel.';

CREATE FUNCTION "{schema}".search_cover(first bigint, last bigint) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$
    WITH hour AS (
        SELECT first >> 12 AS lo, last >> 12 AS hi, (last >> 12) - (first >> 12) < 64 AS enough
    ), day AS (
        SELECT (first >> 17) + 1 AS lo, (last >> 17) - 1 AS hi,
               (last >> 17) - (first >> 17) < 64 AS enough
    ), cells AS (
        SELECT generate_series(lo, CASE WHEN enough THEN hi ELSE lo | 31 END) * 4 AS key FROM hour
        UNION ALL
        SELECT generate_series(hi & -32, hi) * 4 FROM hour WHERE NOT enough
        UNION ALL
        SELECT generate_series(day.lo, CASE WHEN day.enough THEN day.hi
                                            ELSE (day.lo - 1) | 31 END) * 4 + 1
        FROM day, hour WHERE NOT hour.enough
        UNION ALL
        SELECT generate_series((day.hi + 1) & -32, day.hi) * 4 + 1
        FROM day, hour WHERE NOT hour.enough AND NOT day.enough
        UNION ALL
        SELECT generate_series((first >> 22) + 1, (last >> 22) - 1) * 4 + 2
        FROM day, hour WHERE NOT hour.enough AND NOT day.enough
    )
    SELECT coalesce(array_agg(key), '{}') FROM cells
$body$;
COMMENT ON FUNCTION "{schema}".search_cover IS
    'The fewest keys of search_keys whose cells hold all times from one second since 1970 to '
    'another.';
"""

# A lexeme alone, in the order of the term: `C` of "AB BC C" is there for words that end with it.
# With a language, what begins like a word's stem is meant; of "countries" (stem "countri")
# English keeps "countr", which "country" begins with, too.
QUERY = """
CREATE FUNCTION "{schema}".search_term(term text, language text) RETURNS tsquery
LANGUAGE plpgsql STABLE AS $body$
DECLARE
    word record;
    found tsquery;
    one tsquery;
    place integer;
    before text := '';
    stems text[];
    size integer;
BEGIN
    FOR word IN
        SELECT lexeme, position FROM unnest(
            to_tsvector('pg_catalog.simple', "{schema}".search_words(term))) AS of_term,
            unnest(of_term.positions) AS position
        ORDER BY position
    LOOP
        IF word.lexeme ~ '^[{cjk}]$' THEN
            CONTINUE WHEN length(before) = 2 AND right(before, 1) = word.lexeme;
            one := "{schema}".search_lexeme(word.lexeme, true);
        ELSIF language = 'simple' OR word.lexeme ~ '[{cjk}]' THEN
            one := "{schema}".search_lexeme(word.lexeme, false);
        ELSE
            stems := tsvector_to_array(to_tsvector(language::regconfig, word.lexeme));
            CONTINUE WHEN cardinality(stems) = 0;
            size := length(stems[1]);
            WHILE left(stems[1], size) <> left(word.lexeme, size) LOOP
                size := size - 1;
            END LOOP;
            IF size > 3 AND substr(stems[1], size, 1) = 'i' THEN
                size := size - 1;
            END IF;
            IF size < 3 THEN
                one := "{schema}".search_lexeme(word.lexeme, false)
                    || "{schema}".search_lexeme(stems[1], false);
            ELSE
                one := "{schema}".search_lexeme(left(stems[1], size), true);
            END IF;
        END IF;
        found := CASE WHEN found IS NULL THEN one
                      ELSE tsquery_phrase(found, one, word.position - place) END;
        place := word.position;
        before := word.lexeme;
    END LOOP;
    RETURN found;
END
$body$;
COMMENT ON FUNCTION "{schema}".search_term IS
    'A word or phrase as a query of search_document; NULL if it holds no word.';

CREATE FUNCTION "{schema}".search_lexeme(lexeme text, prefix boolean) RETURNS tsquery
LANGUAGE sql IMMUTABLE AS $body$
    SELECT ('''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || ''''
            || CASE WHEN prefix THEN ':*' ELSE '' END)::tsquery
$body$;

CREATE FUNCTION "{schema}".search_query(
    terms text[], excluded boolean[], alternatives integer[], language text
) RETURNS tsquery
LANGUAGE plpgsql STABLE AS $body$
DECLARE
    whole tsquery;
    part tsquery;
    one tsquery;
    now integer;
BEGIN
    FOR number IN 1 .. cardinality(terms) LOOP
        one := "{schema}".search_term(terms[number], language);
        CONTINUE WHEN one IS NULL;
        one := CASE WHEN excluded[number] THEN !! one ELSE one END;
        IF alternatives[number] = now THEN
            part := part && one;
        ELSE
            whole := coalesce(whole || part, part);
            part := one;
            now := alternatives[number];
        END IF;
    END LOOP;
    RETURN coalesce(whole || part, part);
END
$body$;
COMMENT ON FUNCTION "{schema}".search_query IS
    'Terms as one query: all of one alternative, or all of another. NULL if they hold no word.';
""".replace("{cjk}", CJK)

# From the newest time on, in steps that grow until they hold enough: a frequent word costs a look
# at the last hours, a rare one seven looks. A step that may hold far too much, where many messages
# lie behind a time without any, is tried with few rows first and made shorter. What is in the
# future, as of a wrong clock, comes first. Plans are made for the values, so that only partitions
# of these times are opened, and never for a walk over all rows, whose words would have to be
# computed one by one.
SEARCH = """
CREATE FUNCTION "{schema}".search_messages(
    wanted tsquery, needle text, of_channels bigint[], since timestamptz,
    below_at timestamptz, below_channel bigint, below_message bigint, most integer
) RETURNS TABLE (at timestamptz, channel bigint, message bigint, rank real)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_indexscan = off
SET max_parallel_workers_per_gather = 0 SET jit = off AS $body$
DECLARE
    least_span CONSTANT bigint := 4096;
    too_many CONSTANT integer := 300;
    pattern text := '%' || replace(replace(replace(needle, '\\', '\\\\'), '%', '\\%'), '_', '\\_')
                    || '%';
    channel_keys bigint[] := (SELECT array_agg(id * 4 + 3) FROM unnest(of_channels) AS id);
    span bigint := least_span;
    upper_channel bigint := below_channel;
    upper_message bigint := below_message;
    upper timestamptz := below_at;
    lower timestamptz;
    cells bigint[];
    seen integer;
BEGIN
    IF wanted IS NULL AND needle IS NULL THEN
        RETURN;
    END IF;
    LOOP
        lower := CASE WHEN upper > now() THEN now() ELSE upper - span * interval '1 second' END;
        lower := greatest(lower, since);
        cells := "{schema}".search_cover(
            floor(extract(epoch FROM lower))::bigint, floor(extract(epoch FROM upper))::bigint);
        IF span > least_span AND most < too_many THEN
            PERFORM FROM "{schema}".messages AS row {place} LIMIT too_many;
            GET DIAGNOSTICS seen = ROW_COUNT;
            IF seen = too_many THEN
                span := greatest(span / 8, least_span);
                CONTINUE;
            END IF;
        ELSE
            seen := too_many;
        END IF;
        IF seen > 0 THEN
            RETURN QUERY SELECT
                newest.sent_at, newest.channel_id, newest.message_id,
                CASE WHEN needle IS NULL
                THEN ts_rank_cd("{schema}".search_document(newest.text, newest.caption), wanted, 33)
                ELSE "{schema}".search_share(
                    newest.text || coalesce(E'\\n' || newest.caption, ''), needle) END
            FROM (
                SELECT row.sent_at, row.channel_id, row.message_id, row.text, row.caption
                FROM "{schema}".messages AS row {place}
                ORDER BY row.sent_at DESC, row.channel_id DESC, row.message_id DESC LIMIT most
            ) AS newest;
            GET DIAGNOSTICS seen = ROW_COUNT;
        END IF;
        most := most - seen;
        EXIT WHEN most <= 0 OR lower <= since;
        IF upper <= now() THEN
            span := span * least(8, greatest(2, 2 * most / greatest(seen, 1)));
        END IF;
        upper := lower;
        upper_channel := -9223372036854775808;
        upper_message := -9223372036854775808;
    END LOOP;
END
$body$;
COMMENT ON FUNCTION "{schema}".search_messages IS
    'The newest messages that a query fits, or that hold a text in any case, below a place in the '
    'order of sent_at, channel_id and message_id, newest first; without deleted ones.';
""".replace(
    "{place}",
    """
            WHERE (wanted IS NULL
                   OR "{schema}".search_document(row.text, row.caption) @@ wanted)
              AND (needle IS NULL
                   OR row.text || coalesce(E'\\n' || row.caption, '') ILIKE pattern)
              AND "{schema}".search_keys(row.sent_at, row.channel_id) && cells
              AND (channel_keys IS NULL
                   OR "{schema}".search_keys(row.sent_at, row.channel_id) && channel_keys)
              AND (of_channels IS NULL OR row.channel_id + 0 = ANY (of_channels))
              AND row.sent_at BETWEEN lower AND upper
              AND (row.sent_at, row.channel_id, row.message_id)
                  < (upper, upper_channel, upper_message)
              AND row.deleted_at IS NULL""",
)

SHARE = """
CREATE FUNCTION "{schema}".search_share(content text, needle text) RETURNS real
LANGUAGE sql IMMUTABLE AS $body$
    SELECT (score / (score + 1))::real FROM (
        SELECT (length(lower(content)) - length(replace(lower(content), lower(needle), '')))
               / length(lower(needle)) / (1 + ln(length(content))) AS score) AS found
$body$;
COMMENT ON FUNCTION "{schema}".search_share IS
    'How often a text is in another, by the length of that: 0 to 1.';
"""

FUNCTIONS = (WORDS, DOCUMENT, KEYS, QUERY, SHARE, SEARCH)

# A save appends to the index's pending list; who fills it up sorts it in. A short list bounds both
# that, and what each search has to read of it.
INDEX = """
CREATE INDEX messages_search ON "{schema}".messages USING gin (
    "{schema}".search_document(text, caption), "{schema}".search_keys(sent_at, channel_id)
) WITH (gin_pending_list_limit = 1024)
"""


def upgrade() -> None:
    """Add functions and index; writers of messages wait while it is built of those stored."""
    for statement in (*FUNCTIONS, INDEX):
        op.execute(statement.replace("{schema}", context.config.attributes["schema"]))


def downgrade() -> None:
    """Remove them; the library before it did not search."""
    op.execute("DROP INDEX messages_search")
    op.execute("DROP INDEX IF EXISTS messages_search_substrings")
    for name in (
        "messages",
        "share",
        "query",
        "term",
        "lexeme",
        "cover",
        "keys",
        "document",
        "words",
    ):
        op.execute(f"DROP FUNCTION search_{name}")
