"""Writing: the deployment's files into a directory, with secrets that are made once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import Enum
from importlib.resources import files
from pathlib import Path

import attrs

from telegram_hybrid.errors import ConfigurationError
from telegram_hybrid.stack import credentials
from telegram_hybrid.stack.credentials import Secrets
from telegram_hybrid.stack.plan import DATA, SENTINELS, Plan

_PLACEHOLDER = re.compile(r"\{\{ (\w+) \}\}")
#: Where each file goes, and the template that it is written from.
_TEMPLATES = {
    "compose.yaml": "compose.yaml",
    "start.sh": "start.sh",
    ".env": "env",
    **{
        name: name
        for name in (
            "postgres/postgresql.conf",
            "postgres/pg_hba.conf",
            "postgres/init.sql",
            "pgbouncer/pgbouncer.ini",
            "pgbouncer/userlist.txt",
            "rabbitmq/rabbitmq.conf",
            "rabbitmq/definitions.json",
            "rabbitmq/enabled_plugins",
            "systemd/telegram-relay.service",
            "systemd/telegram-consumer.service",
        )
    },
    **{f"redis-{role}/redis.conf": "redis/redis.conf" for role in ("master", "replica")},
    **{f"sentinel-{number}/sentinel.conf": "sentinel/sentinel.conf" for number in SENTINELS},
}
#: Every file of a deployment, relative to its directory.
FILES = (credentials.FILE, *_TEMPLATES)


class Outcome(Enum):
    """What became of one file."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    KEPT = "kept"  #: it differs from what would be written, and stays


@attrs.frozen
class Written:
    """One file, relative to the directory, and what became of it."""

    file: str
    outcome: Outcome


def write(
    directory: Path, plan: Plan | None = None, *, force: bool = False, new_secrets: bool = False
) -> list[Written]:
    """Write the deployment into `directory`, and say what became of each file.

    Every file has mode 0600 and is replaced in one step. Files that are there and differ are
    kept, because somebody may have tuned them, unless `force`. Secrets are made once and kept,
    also by `force`, unless `new_secrets`, which needs `force`: all files change with them, and
    running servers keep the old ones. Raises `InvalidInput` or `ConfigurationError`.
    """
    if new_secrets and not force:
        raise ConfigurationError("new secrets replace every file that holds one: use force, too")
    plan = plan or Plan()
    root = directory.absolute()
    try:
        secrets = Secrets() if new_secrets else _known_secrets(root)
        texts = {credentials.FILE: secrets.text(), **rendered(root, plan, secrets)}
        _make_folders(root, plan)
        return [Written(name, _put(root / name, text, force)) for name, text in texts.items()]
    except OSError as error:
        raise ConfigurationError(f"{error.filename or root}: {error.strerror}") from error


def rendered(root: Path, plan: Plan, secrets: Secrets) -> dict[str, str]:
    """The text of each file, by its name; the secrets' own file is not among them."""
    values = plan.values(root, secrets)
    own = {
        **{f"redis-{r}/redis.conf": plan.redis_values(root, r) for r in ("master", "replica")},
        **{f"sentinel-{n}/sentinel.conf": plan.sentinel_values(root, n) for n in SENTINELS},
    }
    templates = files("telegram_hybrid.stack") / "files"
    return {
        name: _fill((templates / template).read_text(), {**values, **own.get(name, {})})
        for name, template in _TEMPLATES.items()
    }


def _known_secrets(root: Path) -> Secrets:
    """The secrets of `root`, or fresh ones for a directory without files of ours."""
    found = Secrets.read(root)
    if found is None and (orphan := next((n for n in _TEMPLATES if (root / n).exists()), None)):
        raise ConfigurationError(
            f"{root / credentials.FILE} is missing, but {orphan} is there: bring it back, "
            "or write everything anew with force and new secrets"
        )
    return found or Secrets()


def _fill(template: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)


def _make_folders(root: Path, plan: Plan) -> None:
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in FILES:
        (root / name).parent.mkdir(mode=0o700, exist_ok=True)
    if plan.native:
        for name in ("run", "data", *(f"data/{folder}" for folder in DATA)):
            (root / name).mkdir(mode=0o700, exist_ok=True)


def _put(path: Path, text: str, force: bool) -> Outcome:
    """Write `path` if it is missing, or differs and may be replaced; never readable by others."""
    if path.exists():
        if path.read_text(errors="replace") == text:
            path.chmod(0o600)
            return Outcome.UNCHANGED
        if not force:
            return Outcome.KEPT
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return Outcome.WRITTEN
