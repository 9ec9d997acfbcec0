"""`cache` against real servers."""

import redis

from telegram_hybrid import Settings, connect
from telegram_hybrid.testing import make_messages

from .conftest import Environment, only_object, run_command

CHANNEL = -1001


def test_audit_compares_a_sample_and_exits_with_what_it_found(migrated: Environment) -> None:
    with connect(Settings.from_env(migrated)) as hybrid:
        hybrid.messages.save_many(make_messages(10, channel_id=CHANNEL))
        hybrid.messages.get_many(CHANNEL, range(1, 11))
        key = hybrid.cache.keys.message(CHANNEL, 3)
    done = run_command("cache", "audit", "--sample", "5", "--json", env=migrated)
    assert only_object(done.stdout)["checked"] == 5
    assert done.returncode == 0
    with redis.Redis.from_url(migrated["TELEGRAM_REDIS_URL"]) as client:
        client.set(key, client.get(key).replace(b"BUY", b"SELL"))
    done = run_command("cache", "audit", env=migrated)
    assert done.returncode == 1
    assert "1 of 10 keys are not what the database has (100,000 per million)" in done.stdout
    assert key in done.stdout


def test_stats_counts_keys_by_kind(migrated: Environment) -> None:
    with connect(Settings.from_env(migrated)) as hybrid:
        hybrid.messages.save_many(make_messages(10, channel_id=CHANNEL))
        hybrid.messages.get_many(CHANNEL, range(1, 11))
        hybrid.messages.latest(CHANNEL)
    found = only_object(run_command("cache", "stats", "--json", env=migrated).stdout)
    assert found["keys"] == {"dedup": 10, "msg": 10, "recent": 1, "tombstone": 1}
    assert found["memory"] > 0
    shown = run_command("cache", "stats", env=migrated).stdout
    assert ["msg", "10"] in [line.split() for line in shown.splitlines()]


def test_without_a_redis_there_is_nothing_to_audit(migrated: Environment) -> None:
    done = run_command("cache", "audit", env=migrated | {"TELEGRAM_REDIS_URL": ""})
    assert done.returncode == 2
    assert "TELEGRAM_REDIS_URL" in done.stderr
