"""`statistics` against real servers."""

from datetime import UTC, datetime, timedelta

from telegram_hybrid import Settings, Status, connect
from telegram_hybrid.testing import make_message

from .conftest import Environment, only_object, run_command

CHANNEL = -1001649127710


def test_statistics_are_a_table_for_people_and_an_object_for_machines(
    migrated: Environment,
) -> None:
    now = datetime.now(UTC)
    with connect(Settings.from_env(migrated)) as hybrid:
        for number, age in enumerate((0, 0, 2, 40)):
            hybrid.messages.save(make_message(message_id=number, sent_at=now - timedelta(days=age)))
        hybrid.messages.save(make_message(channel_id=-1002, message_id=1, sent_at=now))
        hybrid.messages.mark(CHANNEL, 0, Status.PUBLISHED)
        hybrid.messages.mark(CHANNEL, 1, Status.FAILED)
    done = run_command("statistics", CHANNEL, env=migrated)
    assert done.returncode == 0, done.stderr
    head, *days, together = done.stdout.splitlines()
    assert head.split()[:4] == ["day", "(UTC)", "messages", "published"]
    assert [line.split()[:2] for line in days] == [
        [f"{now - timedelta(days=2):%Y-%m-%d}", "1"],
        [f"{now:%Y-%m-%d}", "2"],
    ]
    assert together.split()[:2] == ["together", "3"]
    assert "50.0%" in together
    done = run_command("statistics", "--by", "hour", "--days", "50", "--json", env=migrated)
    found = only_object(done.stdout)
    assert found["summary"]["messages"] == 5
    assert found["summary"]["channel_id"] is None
    assert sorted((row["channel_id"], row["messages"]) for row in found["rows"]) == [
        (CHANNEL, 1),
        (CHANNEL, 1),
        (CHANNEL, 2),
        (-1002, 1),
    ]


def test_what_is_no_channel_is_said(migrated: Environment) -> None:
    done = run_command("statistics", "--dyas", "3", env=migrated)
    assert done.returncode == 2
    assert "CHANNEL" in done.stderr
