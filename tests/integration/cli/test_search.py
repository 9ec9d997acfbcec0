"""`search` against real servers."""

from telegram_hybrid import Settings, connect
from telegram_hybrid.cli.search import excerpt
from telegram_hybrid.testing import make_message

from .conftest import Environment, only_object, run_command

CHANNEL = -1001


def test_search_is_a_table_for_people_and_pages_for_machines(migrated: Environment) -> None:
    with connect(Settings.from_env(migrated)) as hybrid:
        texts = ["buy BTC/USDT", "sell btc", "nothing"]
        for number, text in enumerate(texts, 1):
            hybrid.messages.save(make_message(channel_id=CHANNEL, message_id=number, text=text))
    done = run_command("search", "btc", "--limit", "1", env=migrated)
    assert done.returncode == 0, done.stderr
    head, line, *_, more = done.stdout.splitlines()
    assert head.split() == ["sent", "(UTC)", "channel/message", "rank", "says"]
    assert "-1001/2" in line
    assert "sell btc" in line
    assert more.startswith("there is more: --cursor") or "there is more" in done.stdout
    first = only_object(run_command("search", "btc", "--limit", "1", "--json", env=migrated).stdout)
    rest = ("--cursor", first["cursor"], "--json")
    then = only_object(run_command("search", "btc", *rest, env=migrated).stdout)
    found = [each["message"]["message_id"] for page in (first, then) for each in page["found"]]
    assert (found, then["cursor"]) == ([2, 1], None)
    done = run_command("maintenance", "substrings", "on", env=migrated)
    assert (done.returncode, done.stdout) == (0, "the index of substrings is on\n")
    assert "-1001/1" in run_command("search", "c/us", "--substring", env=migrated).stdout
    assert "nothing found" in run_command("search", "doge", env=migrated).stdout


def test_what_cannot_be_looked_for_is_said(migrated: Environment) -> None:
    done = run_command("search", "--language", "klingon", "btc", env=migrated)
    assert done.returncode == 2
    assert "language: 'klingon'" in done.stderr


def test_an_excerpt_shows_what_was_looked_for() -> None:
    # Broken on purpose: with the beginning of the message shown, whatever was looked for.
    content = "word " * 100 + "needle\nin " + "stack " * 100
    shown = excerpt(content, 'the "NEEDLE" OR x')
    assert "needle in stack" in shown
    assert shown[0] == shown[-1] == "…"
    assert len(shown) <= 162
    assert excerpt("short", "needle") == "short"
