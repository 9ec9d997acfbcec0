"""The command line without servers: help, usage, versions, errors and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer

from telegram_hybrid import __main__, __version__
from telegram_hybrid.cli import run
from telegram_hybrid.cli.errors import explain, guarded
from telegram_hybrid.cli.output import bytes_of
from telegram_hybrid.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    EmbeddedError,
    InvalidFile,
    InvalidInput,
    MissingExtra,
)

COMMANDS = ["demo", "import", "relay", "consume", "health", "migrate up", "migrate down"]
COMMANDS += [f"dlq {each}" for each in ("list", "show", "replay", "discard", "drain")]
COMMANDS += [f"outbox {each}" for each in ("list", "retry", "replay")]
COMMANDS += ["maintenance run", "roles create", "gaps", "statistics"]
COMMANDS += ["migrate-legacy", "rollback-legacy"]
COMMANDS += ["search", "maintenance substrings"]
COMMANDS += [f"channels {each}" for each in ("list", "register", "deactivate", "migrated")]

PROBE = """
import json, sys, time
begin = time.perf_counter()
from telegram_hybrid.cli import run
code = run(["--help"])
names = {name.split(".")[0] for name in sys.modules}
print(json.dumps({"code": code, "modules": sorted(names)}), file=sys.stderr)
"""


def test_help_loads_no_driver() -> None:
    # Broken on purpose: one command module that imports hybrid at its top loads all of them.
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    found = json.loads(done.stderr)
    assert found["code"] == 0
    drivers = {"sqlalchemy", "psycopg", "redis", "kombu", "alembic", "ijson"}
    assert not drivers & set(found["modules"])


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_how_it_is_used(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command.split(), "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"python -m telegram_hybrid {command}" in shown


def test_the_help_names_the_environments_variables(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in ("TELEGRAM_DATABASE_URL", "TELEGRAM_REDIS_URL", "TELEGRAM_BROKER_URL"):
        assert name in shown


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"telegram_hybrid {__version__}\n"


def test_the_help_of_health_teaches_its_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["health", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for line in ("0: everything works", "1: degraded, with --strict only", "2: down"):
        assert line in shown


USAGE = {
    "no such command": ["nope"],
    "no such option": ["health", "--nope"],
    "a missing argument": ["import"],
    "a value that is none of the choices": ["import", "--on-error", "nope", "x.json"],
    "going down without saying where": ["migrate", "down"],
    "going down without --yes": ["migrate", "down", "--to", "base"],
    "removing what was brought without --yes": ["rollback-legacy"],
    "events and JSON on one stdout": ["consume", "--queue", "look", "--json"],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE.keys())
def test_wrong_usage_is_one_line_and_exit_code_two(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("telegram_hybrid: ")
    assert "--help" in line


ERRORS = [
    (InvalidInput("sent_at", "naive datetime"), 2),
    (InvalidFile("file", "truncated", where="x.json"), 2),
    (ConfigurationError("no database"), 2),
    (MissingExtra("pip install 'telegram-hybrid[embedded]'"), 2),
    (typer.BadParameter("no"), 2),
    (DatabaseUnavailable("PostgreSQL at x: refused"), 1),
    (EmbeddedError("in use"), 1),
    (ZeroDivisionError("bug"), 1),
]


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda value: type(value).__name__)
def test_an_error_is_one_line_and_its_exit_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise error

    assert guarded(fail, debug=False) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"telegram_hybrid: {explain(error)}"
    assert guarded(fail, debug=True) == code
    assert "Traceback" in capsys.readouterr().err


def test_what_was_added_to_an_error_on_its_way_is_told_too() -> None:
    error = InvalidInput("text", "NUL", where="x.json: messages[2]")
    error.add_note("2 messages before it are stored")
    assert explain(error) == "x.json: messages[2]: text: NUL; 2 messages before it are stored"


def test_ctrl_c_is_one_line_and_130(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert guarded(interrupted, debug=False) == 130
    assert capsys.readouterr().err == "telegram_hybrid: interrupted\n"


def test_without_the_extra_one_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(__main__, "find_spec", lambda name: None if name == "typer" else object())
    assert __main__.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "needs typer" in line
    assert "pip install 'telegram-hybrid[cli]'" in line


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (47_000, "47.0 kB"), (27_292_293, "27.3 MB"), (2e9, "2.0 GB")],
)
def test_sizes_are_told_in_decimal_units(count: int, shown: str) -> None:
    assert bytes_of(count) == shown
