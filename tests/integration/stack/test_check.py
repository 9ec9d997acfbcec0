"""`stack check` on real programs: what is written passes, and one wrong key fails by its line."""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from mutations import WITH_DAEMON, mutate
from servers.stack import NativeStack

from telegram_hybrid.cli import run
from telegram_hybrid.stack import FILES, Plan, check, checking, daemons, write

pytestmark = pytest.mark.integration


@pytest.fixture
def written() -> Iterator[Path]:
    """A deployment for native servers, whose path is short enough for a unix socket."""
    if missing := NativeStack.missing():
        pytest.skip(missing)
    with tempfile.TemporaryDirectory(prefix="check-", dir="/var/tmp") as folder:
        write(Path(folder), Plan(native=True))
        yield Path(folder)


@pytest.mark.parametrize("native", [True, False])
def test_what_is_written_passes_every_program(written: Path, native: bool) -> None:
    if not native:
        write(written, force=True)
    report = check(written)
    _need(*report.skipped)
    assert report.problems == ()
    asked = {each.file: each.by[1:] for each in report.files}
    assert [name for name in WITH_DAEMON if not asked[name]] == []


@pytest.mark.parametrize("name", FILES)
def test_one_unknown_key_fails_the_check_of_its_file_by_its_line(written: Path, name: str) -> None:
    # Seen to fail with a reader that passes over what it does not understand.
    line = mutate(written, name)
    report = checking.check_files(written, [name])
    assert not report.ok
    assert (name, line) in [(each.file, each.line) for each in report.problems]


@pytest.mark.parametrize("names", [FILES, [".env"]], ids=["in all files", "in one"])
def test_the_command_fails_and_names_every_file_and_line(
    written: Path, names: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    # Seen to fail with the last of FILES left out of `check`, which each file's own test above
    # does not notice.
    lines = {name: mutate(written, name) for name in names}
    assert run(["stack", "check", str(written)]) == 1
    out = capsys.readouterr().out
    assert [name for name, line in lines.items() if f"{name}:{line}: " not in out] == []


@pytest.mark.parametrize("name", WITH_DAEMON)
def test_the_real_program_alone_finds_the_unknown_key(written: Path, name: str) -> None:
    line = mutate(written, name)
    daemon = checking._KINDS[Path(name).name].daemon
    assert daemon is not None
    verdict = daemon(written / name, name)
    if verdict.program is None:
        _need(verdict.missing)
    assert [problem.line for problem in verdict.problems] == [line]
    assert verdict.problems[0].file == name


def _need(*missing: str) -> None:
    """Skip if a program is missing that a package would bring."""
    for program in missing:
        package = {"docker compose": "docker-compose"}.get(program, program)
        pytest.skip(f"{program} is not installed (apt-get install {package})")


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("postgres/postgresql.conf", "max_connections = 100", "max_connections = many"),
        ("postgres/postgresql.conf", "port =", "port = ="),
        ("postgres/pg_hba.conf", "samenet   scram-sha-256", "samenet scram-sha-256 x=1"),
        ("postgres/pg_hba.conf", "samenet ", "127.0.0.1/99 "),
        ("postgres/init.sql", "LOGIN NOSUPERUSER", "LOGIN NOSUPERUSR"),
        ("postgres/init.sql", "GRANT EXECUTE ON FUNCTION pgb", "GRANT EXECUTE ON FUNCTON pgb"),
        ("postgres/init.sql", "    FROM pg_authid", "    FROM pg_authids"),
        ("pgbouncer/pgbouncer.ini", "pool_mode = transaction", "pool_mode = sometimes"),
        ("redis-master/redis.conf", "maxmemory 1gb", "maxmemory much"),
        ("sentinel-2/sentinel.conf", "parallel-syncs telegram-redis", "parallel-syncs other-name"),
        ("rabbitmq/rabbitmq.conf", "heartbeat = 30", "heartbeat = often"),
        ("rabbitmq/rabbitmq.conf", "log.console = true", "log.console true"),
        ("systemd/telegram-relay.service", "Restart=on-failure", "Restart=sometimes"),
    ],
)
def test_a_value_that_only_the_program_judges_fails_by_its_line(
    written: Path, name: str, good: str, bad: str
) -> None:
    path = written / name
    text = path.read_text()
    assert good in text
    path.write_text(text.replace(good, bad, 1))
    report = checking.check_files(written, [name])
    if name.startswith("systemd"):
        _need(*report.skipped)
    (problem,) = report.problems
    assert (problem.file, problem.line) == (name, text[: text.index(good)].count("\n") + 1)


def test_the_report_is_one_json_object_without_secrets(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = re.findall(r"=([0-9a-f]{48})", (written / "secrets.env").read_text())
    assert len(secrets) == 6
    for name in FILES:
        # Every line wrong in turn would take long; a wrong word before each secret is enough.
        path = written / name
        text = re.sub(r"(requirepass|sentinel-pass|masterauth) ", r"x\1 ", path.read_text())
        path.write_text(text)
    # The wrong quotes. Seen to fail: PostgreSQL's error quotes the verifier between them.
    path = written / "postgres/init.sql"
    path.write_text(re.sub("'(SCRAM[^']+)'", r'"\1"', path.read_text()))
    assert run(["stack", "check", str(written), "--json"]) == 1
    out = capsys.readouterr().out
    report = json.loads(out)
    assert report["ok"] is False
    assert {p["file"] for p in report["problems"]} >= {"redis-master/redis.conf"}
    assert [secret for secret in secrets if secret in out] == []
    assert "postgres/init.sql" in {p["file"] for p in report["problems"]}
    assert "SCRAM-SHA-256$" not in out


def test_docker_compose_reads_the_file(tmp_path: Path) -> None:
    write(tmp_path / "deployment")
    verdict = daemons.compose(tmp_path / "deployment/compose.yaml", "compose.yaml")
    if verdict.program is None:
        _need(verdict.missing)
    assert verdict.problems == ()


def test_the_containers_script_hands_its_files_to_the_services_user(tmp_path: Path) -> None:
    # The script itself, with its fixed folder replaced by one of the test's.
    write(tmp_path / "d")
    files, target = tmp_path / "d/sentinel-1", tmp_path / "run"
    script = tmp_path / "start.sh"
    script.write_text((tmp_path / "d/start.sh").read_text().replace("/stack/", f"{files}/"))
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    command = ["/bin/sh", str(script), user, str(target), "sed", "-n", "s/^port //p"]
    command.append(str(target / "sentinel.conf"))

    def start() -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert start() == "26379"
    copy = target / "sentinel.conf"
    assert copy.stat().st_mode & 0o777 == 0o600
    copy.write_text("port 1\n")  # what a Sentinel wrote stays,
    assert start() == "1"
    later = copy.stat().st_mtime + 10  # until the deployment is written anew
    os.utime(files / "sentinel.conf", (later, later))
    assert start() == "26379"
