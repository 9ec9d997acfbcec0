"""The check without any program: every file is read against the keys that are known."""

import re
from pathlib import Path
from typing import Any

import pytest
from mutations import mutate

from telegram_hybrid.errors import ConfigurationError
from telegram_hybrid.settings import Settings
from telegram_hybrid.stack import FILES, Plan, check, checking, formats, programs, write
from telegram_hybrid.stack.formats import Entry, Flaw


@pytest.fixture(autouse=True)
def _nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find", lambda *_: None)


@pytest.mark.parametrize("native", [True, False])
def test_what_is_written_is_known(tmp_path: Path, native: bool) -> None:
    write(tmp_path, Plan(native=native))
    report = check(tmp_path)
    assert report.problems == ()
    assert {each.file for each in report.files} == set(FILES)
    assert "pgbouncer" in report.skipped


@pytest.mark.parametrize("name", FILES)
def test_one_unknown_key_is_found_by_its_line(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    line = mutate(tmp_path, name)
    problems = check(tmp_path).problems
    assert [(each.file, each.line) for each in problems] == [(name, line)]


@pytest.mark.parametrize("native", [True, False])
def test_any_key_that_is_misspelt_is_found_by_its_line(tmp_path: Path, native: bool) -> None:
    """Every key of every file in turn. Only names that are somebody's own choice may be others.

    Seen to fail: a misspelt RABBITMQ_CONFIG_FILE in compose.yaml was known, with which the broker
    starts on its own defaults, guest and all; and a misspelt limit.
    """
    write(tmp_path, Plan(native=native))
    missed = set()
    for name in FILES:
        path = tmp_path / name
        text = path.read_text()
        lines = text.splitlines(keepends=True)
        for entry in checking._KINDS[path.name].reader(text):
            assert isinstance(entry, Entry)
            word = entry.key if "." not in path.name else re.split(r"\.(?=[^.]*$)", entry.key)[-1]
            at = re.search(re.escape(word), lines[entry.line - 1], re.IGNORECASE)
            assert at is not None, entry
            changed = list(lines)
            changed[entry.line - 1] = f"{at.string[: at.end()]}x{at.string[at.end() :]}"
            path.write_text("".join(changed))
            found = [each.line for each in checking.check_files(tmp_path, [name]).problems]
            if entry.line not in found:
                missed.add(re.sub(r"(services|networks|volumes)\.[^.]+", r"\1.NAME", entry.key))
        path.write_text(text)
    assert missed == {
        *("services.NAME", "networks.NAME", "volumes.NAME"),
        *(f"services.NAME.depends_on.{each}" for each in ("timescaledb", *REDIS)),
        # Of the logger, which may be another; and the names of listeners.
        *(f"services.NAME.logging.options.max-{each}" for each in ("size", "file")),
        "listeners.tcp.1",
    }


REDIS = ("redis-master", "redis-replica")


@pytest.mark.parametrize("name", FILES)
def test_no_problem_quotes_a_secret_of_a_torn_line(tmp_path: Path, name: str) -> None:
    # P12. Seen to fail for redis.conf and sentinel.conf: "'<secret>' without a value".
    write(tmp_path)
    path = tmp_path / name
    secret = re.compile(r"\b[0-9a-f]{48}\b|SCRAM-SHA-256[^']+")
    secrets = secret.findall(path.read_text())
    path.write_text(secret.sub(r"\n\g<0>\n", path.read_text()))
    told = " ".join(map(str, check(tmp_path).problems))
    if secrets and name != "postgres/init.sql":  # whose strings PostgreSQL alone reads
        assert told
    assert [each for each in secrets if each in told] == []


def test_every_variable_of_the_settings_is_known(tmp_path: Path) -> None:
    asked: set[str] = set()

    class Environment(dict[str, str]):
        def get(self, name: str, default: Any = None) -> Any:
            asked.add(name)
            return super().get(name, default)

    Settings.from_env(Environment(TELEGRAM_DB_HOST="h", TELEGRAM_REDIS_HOST="h"))
    write(tmp_path)
    (tmp_path / ".env").write_text("".join(f"{name}=1\n" for name in sorted(asked)))
    assert check(tmp_path).problems == ()


def test_a_file_that_is_gone_or_open_to_others_is_a_problem(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    write(directory)
    directory.chmod(0o755)
    (directory / ".env").chmod(0o644)
    (directory / "start.sh").unlink()
    found = {each.file: each.text for each in check(directory).problems}
    assert set(found) == {".env", "start.sh"}
    assert "chmod 600" in found[".env"]


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="stack write"):
        check(tmp_path / "missing")


def test_keys_are_found_where_their_sections_put_them() -> None:
    text = "[databases]\na = host=h dbnam=x\n[pgbouncer]\n; no\nport = 1\nword\n"
    assert list(formats.pgbouncer(text)) == [
        Entry(2, "databases.host"),
        Entry(2, "databases.dbnam"),
        Entry(5, "pgbouncer.port"),
        Flaw(6, "not key = value"),
    ]


def test_a_merged_mapping_is_read_where_it_is_merged() -> None:
    text = "x-base: &base\n  imgae: a\nservices:\n  one:\n    <<: *base\n    cpus: 1\n"
    assert set(formats.tree(text)) == {
        Entry(3, "services"),
        Entry(4, "services.one"),
        Entry(6, "services.one.cpus"),
        Entry(2, "services.one.imgae"),
    }


@pytest.mark.parametrize("text", ["a: [1", "- a\n", "a: b: c\n"])
def test_what_is_no_mapping_is_a_flaw(text: str) -> None:
    assert [type(each) for each in formats.tree(text)] == [Flaw]
