"""Statistics equal what counting the messages gives, whatever was done to them."""

from __future__ import annotations

import importlib
import threading
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from counting import CHANNELS, HOUR, NOON, Life, assert_equal_to_counting, cells, execute
from sqlalchemy import text

from telegram_hybrid import (
    Hybrid,
    InvalidInput,
    MessageType,
    Settings,
    Source,
    Statistics,
    Status,
    connect,
)
from telegram_hybrid.connect.postgres import open_engine
from telegram_hybrid.model.statistics import PERCENTILE_ERROR
from telegram_hybrid.schema.postgres import migrate
from telegram_hybrid.testing import make_message, make_messages
from telegram_hybrid.testing.factories import CHANNEL_ID

pytestmark = pytest.mark.integration

REVISION = "telegram_hybrid.schema.postgres.migrations.versions.r0015_message_rollups"


@pytest.mark.parametrize("seed", [1, 2])
def test_the_rollups_equal_counting_after_anything_that_is_done_to_messages(
    hybrid: Hybrid, seed: int
) -> None:
    # Broken on purpose: without the trigger on DELETE; without the look for an extreme that went
    # away, with either of its conditions alone, without the bin in it, and with max for min.
    life = Life(hybrid, Random(seed), CHANNELS)
    for _ in range(20):
        for _ in range(10):
            life.step()
        life.by_hand()
        hybrid.statistics.refresh()
        assert_equal_to_counting(hybrid)
    assert len(cells(hybrid, "hourly")) > 40


def test_they_equal_counting_after_writers_at_once(hybrid: Hybrid) -> None:
    # Broken on purpose: with `messages = EXCLUDED.messages` for the sum.
    failed: list[BaseException] = []

    def work(seed: int) -> None:
        life = Life(hybrid, Random(seed), CHANNELS)
        try:
            for _ in range(40):
                life.step()
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work, args=[seed]) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    hybrid.statistics.refresh()
    assert_equal_to_counting(hybrid)


def test_a_commit_is_counted_and_a_rollback_is_not(hybrid: Hybrid) -> None:
    hybrid.messages.save_many(make_messages(3))
    with pytest.raises(RuntimeError), hybrid.transaction() as tx:
        tx.messages.save_batch(make_messages(5))
        raise RuntimeError
    assert hybrid.statistics.summary(CHANNEL_ID).messages == 3


@pytest.mark.one_server
def test_rows_are_by_channel_and_hour_or_day(hybrid: Hybrid) -> None:
    sent = [NOON, NOON + timedelta(minutes=59), NOON + HOUR, NOON + 24 * HOUR]
    for channel_id in (-1002, -1001):
        hybrid.messages.save_many(
            make_message(channel_id=channel_id, message_id=number, sent_at=at)
            for number, at in enumerate(sent)
        )
    hybrid.messages.save(make_message(channel_id=-1003, sent_at=NOON))

    hourly = hybrid.statistics.hourly(-1001)
    assert [(row.since - NOON, row.until - row.since, row.messages) for row in hourly] == [
        (0 * HOUR, HOUR, 2),
        (HOUR, HOUR, 1),
        (24 * HOUR, HOUR, 1),
    ]
    midnight = NOON - 12 * HOUR
    daily = hybrid.statistics.daily()
    assert [(row.channel_id, row.since - midnight, row.messages) for row in daily] == [
        (-1003, 0 * HOUR, 1),
        (-1002, 0 * HOUR, 3),
        (-1002, 24 * HOUR, 1),
        (-1001, 0 * HOUR, 3),
        (-1001, 24 * HOUR, 1),
    ]
    assert {row.until - row.since for row in daily} == {24 * HOUR}


def test_a_range_is_half_open_and_widened_to_whole_steps(hybrid: Hybrid) -> None:
    # Broken on purpose: with `bucket <= :until`, and with `until` rounded down.
    hybrid.messages.save_many(
        make_message(message_id=number, sent_at=NOON + number * HOUR) for number in range(5)
    )
    minute = timedelta(minutes=1)

    def summary(since: datetime, until: datetime) -> tuple[datetime, datetime, int]:
        found = hybrid.statistics.summary(CHANNEL_ID, since=since, until=until)
        return found.since, found.until, found.messages

    assert summary(NOON + HOUR, NOON + 3 * HOUR) == (NOON + HOUR, NOON + 3 * HOUR, 2)
    assert summary(NOON + HOUR + minute, NOON + 3 * HOUR + minute) == (
        NOON + HOUR,
        NOON + 4 * HOUR,
        3,
    )
    assert summary(NOON + 9 * HOUR, NOON + 10 * HOUR)[2] == 0
    everything = hybrid.statistics.summary()
    assert (everything.since, everything.until, everything.messages) == (NOON, NOON + 5 * HOUR, 5)
    assert len(hybrid.statistics.daily(since=NOON + HOUR).rows) == 1


@pytest.mark.one_server
def test_figures_tell_what_became_of_the_messages(hybrid: Hybrid) -> None:
    kinds = [MessageType.CHANNEL_POST] * 6 + [MessageType.CHANNEL_POST_COMMENT] * 4
    hybrid.messages.save_many(
        make_message(message_id=number, sent_at=NOON, message_type=kind, source=Source.MTPROTO)
        for number, kind in enumerate(kinds)
    )
    for number, status in enumerate([Status.PUBLISHED] * 3 + [Status.FAILED, Status.QUEUED]):
        hybrid.messages.mark(CHANNEL_ID, number, status)
    hybrid.messages.delete(CHANNEL_ID, 0)
    found: Statistics = hybrid.statistics.summary(CHANNEL_ID)
    assert found.messages == 10
    assert (found.posts, found.comments) == (6, 4)
    assert found.by_source == {Source.MTPROTO: 10}
    assert found.by_status == {
        Status.DELETED: 1,
        Status.FAILED: 1,
        Status.PUBLISHED: 2,
        Status.QUEUED: 1,
        Status.RECEIVED: 5,
    }
    assert found.success_rate == pytest.approx(2 / 3)
    assert found.latency is not None
    assert found.latency.messages == 3  # the deleted one was published before


def test_latencies_are_exact_at_the_ends_and_near_in_between(hybrid: Hybrid) -> None:
    random = Random(7)
    hybrid.messages.save_many(
        make_message(message_id=number, sent_at=NOON + timedelta(seconds=number * 30))
        for number in range(500)
    )
    seconds = sorted(random.lognormvariate(0, 2) for _ in range(500))
    execute(
        hybrid,
        "UPDATE {s}.messages SET status = 'published',"
        " published_at = received_at + make_interval(secs => late)"
        " FROM unnest(CAST(:late AS float[])) WITH ORDINALITY AS row (late, number)"
        " WHERE message_id = number - 1",
        late=random.sample(seconds, len(seconds)),
    )
    found = hybrid.statistics.summary(CHANNEL_ID).latency
    assert found is not None
    assert found.messages == 500
    assert found.least == pytest.approx(seconds[0], abs=1e-6)
    assert found.greatest == pytest.approx(seconds[-1], abs=1e-6)
    assert found.mean == pytest.approx(sum(seconds) / 500, abs=1e-6)
    assert found.p50 == pytest.approx(seconds[249], rel=PERCENTILE_ERROR)
    assert found.p95 == pytest.approx(seconds[474], rel=PERCENTILE_ERROR)
    assert found.p99 == pytest.approx(seconds[494], rel=PERCENTILE_ERROR)


def test_hours_are_those_of_utc_whatever_the_sessions_zone(hybrid: Hybrid) -> None:
    # Broken on purpose: date_trunc('hour', sent_at) begins the hours at half past.
    with hybrid.transaction() as tx:
        tx.connection.execute(text("SET LOCAL TIME ZONE 'Asia/Kolkata'"))
        tx.messages.save(make_message(sent_at=NOON + timedelta(minutes=40)))
    assert [row.since for row in hybrid.statistics.hourly()] == [NOON]


def test_what_was_counted_stays_when_a_partition_goes(hybrid: Hybrid) -> None:
    hybrid.messages.save_many(make_messages(10))
    hybrid.statistics.refresh()
    before = hybrid.statistics.hourly().rows
    ((part,),) = execute(hybrid, "SELECT DISTINCT tableoid::regclass::text FROM {s}.messages")
    execute(hybrid, f"DROP TABLE {part}")
    assert execute(hybrid, "SELECT count(*) FROM {s}.messages") == [(0,)]
    hybrid.statistics.refresh()
    assert hybrid.statistics.hourly().rows == before


def test_a_backfill_of_any_age_is_counted(hybrid: Hybrid) -> None:
    # Broken on purpose, on TimescaleDB: without a refresh in `maintain`, with one from three days
    # ago on, with materialized rows alone, and with a single refresh of the daily rollup, which
    # leaves one of several parts for the next.
    now = datetime.now(UTC)
    ages = [timedelta(0), timedelta(hours=3), timedelta(days=50), timedelta(days=140)]
    backfill = [timedelta(days=50), timedelta(days=500), timedelta(days=700)]

    def save(numbers: range, ages: list[timedelta]) -> None:
        hybrid.messages.save_many(
            make_message(message_id=number, sent_at=now - age)
            for number, age in zip(numbers, ages, strict=True)
        )

    save(range(4), ages)
    assert hybrid.statistics.summary().messages == 4
    hybrid.statistics.refresh()
    save(range(4, 7), backfill)
    hybrid.messages.mark(CHANNEL_ID, 1, Status.PUBLISHED)
    hybrid.messages.mark(CHANNEL_ID, 0, Status.PUBLISHED)
    assert hybrid.statistics.summary(since=now - HOUR).by_status == {Status.PUBLISHED: 1}
    hybrid.maintain()
    assert len(hybrid.statistics.daily(CHANNEL_ID).rows) >= 5
    assert_equal_to_counting(hybrid)
    assert hybrid.statistics.summary().by_status == {Status.PUBLISHED: 2, Status.RECEIVED: 5}


def test_messages_that_were_there_before_are_counted_by_the_migration(
    telegram_settings: Settings,
) -> None:
    # Broken on purpose: without the last statement of the upgrade.
    with connect(telegram_settings) as hybrid:
        hybrid.migrate()
        try:
            life = Life(hybrid, Random(3), CHANNELS)
            for _ in range(60):
                life.step()
            before = importlib.import_module(REVISION).down_revision
            engine = open_engine(telegram_settings)
            with engine.connect() as connection:
                schema = telegram_settings.database_schema
                migrate.downgrade(connection, schema=schema, to=before)
            engine.dispose()
            assert hybrid.migrate().is_current
            assert len(cells(hybrid, "hourly")) > 20
            assert_equal_to_counting(hybrid)
        finally:
            hybrid.destroy()


def test_a_question_is_checked_before_it_is_asked() -> None:
    nowhere = connect(Settings(database_url="postgresql://127.0.0.1:1/none"))
    for field, options in {
        "since": {"since": datetime(2024, 1, 1)},
        "until": {"since": NOON, "until": NOON},
        "channel_id": {"channel_id": 0},
    }.items():
        for call in (
            nowhere.statistics.hourly,
            nowhere.statistics.daily,
            nowhere.statistics.summary,
        ):
            with pytest.raises(InvalidInput) as refused:
                call(**options)
            assert refused.value.field == field


@pytest.mark.one_server
def test_one_channel_is_read_by_the_primary_key(hybrid: Hybrid) -> None:
    execute(
        hybrid,
        "INSERT INTO {s}.message_rollups"
        " SELECT -1000 - n % 50, '2024-01-01Z'::timestamptz + n / 50 * interval '1 hour',"
        " 'received', 'bot', 'channel_post', -1, 1, NULL, NULL, NULL, 1, 1"
        " FROM generate_series(1, 50000) AS n",
    )
    execute(hybrid, "ANALYZE {s}.message_rollups")
    plan = "\n".join(
        row[0]
        for row in execute(
            hybrid,
            "EXPLAIN SELECT sum(messages) FROM {s}.message_statistics_hourly"
            " WHERE bucket >= '2024-01-03Z' AND bucket < '2024-01-08Z' AND channel_id = -1007",
        )
    )
    assert "message_rollups_pkey" in plan
    assert "Seq Scan" not in plan
