"""Writing a deployment: complete, private, repeatable, and never over somebody's own work."""

import re
import stat
from pathlib import Path

import pytest

from telegram_hybrid.cli import run
from telegram_hybrid.errors import ConfigurationError, InvalidInput
from telegram_hybrid.settings import Settings
from telegram_hybrid.stack import FILES, PORTS, Outcome, Plan, write
from telegram_hybrid.stack.credentials import Secrets, rabbitmq_hash, scram_verifier

SECRET = re.compile(r"\b[0-9a-f]{48}\b")


def texts(directory: Path) -> dict[str, str]:
    return {name: (directory / name).read_text() for name in FILES}


def variables(directory: Path) -> dict[str, str]:
    lines = (directory / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("native", [True, False])
def test_every_file_is_written_without_a_placeholder_left(tmp_path: Path, native: bool) -> None:
    write(tmp_path, Plan(native=native))
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == set(FILES)
    assert [name for name, text in texts(tmp_path).items() if "{{" in text or "}}" in text] == []


def test_only_the_owner_may_read_any_file(tmp_path: Path) -> None:
    # Seen to fail with Path.write_text instead of a descriptor opened with 0600.
    write(tmp_path / "new")
    modes = {stat.S_IMODE((tmp_path / "new" / name).stat().st_mode) for name in FILES}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_two_deployments_share_no_secret(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        write(tmp_path / name)
        found.append(set(SECRET.findall("\n".join(texts(tmp_path / name).values()))))
    assert len(found[0]) == len(found[1]) == 6
    assert found[0].isdisjoint(found[1])


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    before = texts(tmp_path)
    assert {each.outcome for each in write(tmp_path)} == {Outcome.UNCHANGED}
    assert texts(tmp_path) == before


def test_a_tuned_file_stays_unless_forced_and_secrets_stay_even_then(tmp_path: Path) -> None:
    write(tmp_path)
    tuned = tmp_path / "postgres/postgresql.conf"
    original = tuned.read_text()
    tuned.write_text(original.replace("512MB", "4GB"))
    secrets = Secrets.read(tmp_path)

    kept = [each.file for each in write(tmp_path) if each.outcome is Outcome.KEPT]
    assert kept == ["postgres/postgresql.conf"]
    assert "4GB" in tuned.read_text()

    write(tmp_path, force=True)
    assert tuned.read_text() == original
    assert Secrets.read(tmp_path) == secrets


def test_new_secrets_are_made_only_when_everything_may_be_replaced(tmp_path: Path) -> None:
    write(tmp_path)
    before = texts(tmp_path)
    with pytest.raises(ConfigurationError, match="force"):
        write(tmp_path, new_secrets=True)
    assert texts(tmp_path) == before
    write(tmp_path, force=True, new_secrets=True)
    old, new = (set(SECRET.findall("".join(each.values()))) for each in (before, texts(tmp_path)))
    assert old.isdisjoint(new)


def test_lost_secrets_are_not_replaced_beside_files_that_hold_them(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "secrets.env").unlink()
    with pytest.raises(ConfigurationError, match=r"secrets\.env is missing"):
        write(tmp_path)
    assert not (tmp_path / "secrets.env").exists()


@pytest.mark.parametrize("spoilt", ["REDIS_PASSWORD=a b", "OTHER=1", "REDIS_PASSWORD"])
def test_a_spoilt_secrets_file_is_named_by_line_and_not_shown(tmp_path: Path, spoilt: str) -> None:
    write(tmp_path)
    (tmp_path / "secrets.env").write_text(spoilt + "\n")
    with pytest.raises(ConfigurationError, match="line 1") as refused:
        write(tmp_path)
    assert "a b" not in str(refused.value)


def test_the_env_file_makes_settings_that_name_every_server(tmp_path: Path) -> None:
    write(tmp_path, Plan(ports={"redis": 16379}))
    env = variables(tmp_path)
    settings = Settings.from_env(env)
    assert settings.database_url.endswith("@127.0.0.1:5434/telegram")
    assert settings.broker_url is not None
    assert settings.broker_url.endswith("@127.0.0.1:5672/telegram")
    assert env["TELEGRAM_REDIS_PORT"] == "16379"
    assert env["TELEGRAM_REDIS_SENTINELS"].count(":263") == 3
    # What the containers announce is reached on this machine's loopback.
    assert "redis-replica:6380=127.0.0.1:6380" in env["TELEGRAM_REDIS_ADDRESS_MAP"].split(",")


def test_every_port_is_published_on_loopback_only(tmp_path: Path) -> None:
    write(tmp_path / "c")
    compose = (tmp_path / "c/compose.yaml").read_text()
    published = re.findall(r'"([\d.]+):(\d+):(\d+)"', compose)
    assert {host for host, _, _ in published} == {"127.0.0.1"}
    assert sorted(int(port) for _, port, _ in published) == sorted(PORTS.values())
    assert [pair for pair in published if pair[1] != pair[2]] == []


def test_every_image_has_a_version(tmp_path: Path) -> None:
    write(tmp_path)
    images = re.findall(r"image: (\S+)", (tmp_path / "compose.yaml").read_text())
    assert len(images) == 5
    assert [image for image in images if not re.search(r":v?\d+\.\d+\.\d+", image)] == []


def test_no_secret_is_printed_or_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stack", "write", str(tmp_path / "d")]) == 0
    assert run(["stack", "write", str(tmp_path / "d"), "--json"]) == 0
    printed = capsys.readouterr()
    assert SECRET.findall(printed.out + printed.err) == []
    assert SECRET.findall(repr(Secrets.read(tmp_path / "d"))) == []


@pytest.mark.parametrize(
    ("plan", "field"),
    [
        ({"ports": {"redys": 1}}, "ports"),
        ({"ports": {"redis": 70000}}, "ports"),
        ({"ports": {"redis": 6380}}, "ports"),
        ({"python": "/usr/bin/my python"}, "python"),
        ({"handler": "module; rm -rf"}, "handler"),
    ],
)
def test_a_bad_plan_is_refused_by_field(plan: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{field}: "):
        Plan(**plan)


@pytest.mark.parametrize("name", ["with space", "per%cent", 'quo"te', "new\nline", "x" * 200])
def test_a_directory_that_a_file_could_not_name_is_refused_and_not_made(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidInput, match=r"^directory: "):
        write(tmp_path / name, Plan(native=True))
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_port_option_exits_with_2(tmp_path: Path) -> None:
    assert run(["stack", "write", str(tmp_path), "--port", "redis"]) == 2
    assert run(["stack", "write", str(tmp_path), "--port", "redis=x"]) == 2


def test_hashes_are_those_of_the_servers_own_documentation() -> None:
    # Each part is checked against the other by real servers in tests/integration/stack; here
    # their form: PostgreSQL's SCRAM-SHA-256$iterations:salt$stored:server, RabbitMQ's 36 bytes.
    assert re.fullmatch(
        r"SCRAM-SHA-256\$4096:[\w+/]{22}==\$[\w+/]{43}=:[\w+/]{43}=", scram_verifier("secret")
    )
    assert len(rabbitmq_hash("secret")) == 48
    assert scram_verifier("a") != scram_verifier("b")
