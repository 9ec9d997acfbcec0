"""Checking: every file of a deployment, by the keys that are known and by its real daemon."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import attrs

from telegram_hybrid.errors import ConfigurationError, MissingExtra
from telegram_hybrid.stack import cluster, credentials, daemons, formats
from telegram_hybrid.stack.formats import Entry, Reader
from telegram_hybrid.stack.problem import Problem
from telegram_hybrid.stack.programs import Verdict
from telegram_hybrid.stack.writing import FILES

_BY_KEYS = "known keys"
Daemon = Callable[[Path, str], Verdict]


@attrs.frozen
class _Kind:
    """How a kind of file is read, which lists know its keys, and which daemon judges it."""

    reader: Reader
    known: tuple[str, ...] = ()
    daemon: Daemon | None = None


_KINDS = {
    "compose.yaml": _Kind(formats.tree, ("compose",), daemons.compose),
    "start.sh": _Kind(formats.script, (), daemons.shell),
    ".env": _Kind(formats.environment, ("environment",)),
    "secrets.env": _Kind(formats.environment, ("secrets",)),
    "postgresql.conf": _Kind(formats.postgresql, ("postgresql",), daemons.postgres),
    "pg_hba.conf": _Kind(formats.host_rules, ("host_rules",), cluster.host_rules),
    "init.sql": _Kind(formats.statements, ("statements",), cluster.statements),
    "pgbouncer.ini": _Kind(formats.pgbouncer, ("pgbouncer",), daemons.pgbouncer),
    "userlist.txt": _Kind(formats.users),
    "redis.conf": _Kind(formats.redis, ("redis",), daemons.redis),
    "sentinel.conf": _Kind(formats.redis, ("redis", "sentinel"), daemons.sentinel),
    "rabbitmq.conf": _Kind(formats.rabbitmq, ("rabbitmq",), daemons.rabbitmq),
    "definitions.json": _Kind(formats.json_tree, ("definitions",)),
    "enabled_plugins": _Kind(formats.plugins, ("plugins",)),
    "telegram-relay.service": _Kind(formats.systemd, ("systemd",), daemons.systemd),
    "telegram-consumer.service": _Kind(formats.systemd, ("systemd",), daemons.systemd),
}


@attrs.frozen
class Checked:
    """A file that was checked, and by whom: "known keys", or a program with its version."""

    file: str
    by: tuple[str, ...]


@attrs.frozen
class Report:
    """What a check found; `skipped` names the programs that are not installed here."""

    files: tuple[Checked, ...]
    problems: tuple[Problem, ...]
    skipped: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether no file has a problem."""
        return not self.problems


def check(directory: Path) -> Report:
    """Check every file of the deployment in `directory`.

    Each is read against the keys that its daemon knows and, where that is installed here, by the
    daemon itself, on a copy: nothing listens, nothing is changed. Raises `ConfigurationError` if
    there is no such directory, `MissingExtra` without PyYAML.
    """
    if not directory.is_dir():
        raise ConfigurationError(
            f"{directory}: no such directory; write it: stack write {directory}"
        )
    if find_spec("yaml") is None:
        raise MissingExtra("stack check reads YAML: pip install 'telegram-hybrid[cli]'")
    return check_files(directory, FILES)


def check_files(directory: Path, names: Sequence[str]) -> Report:
    """Check these of a deployment's `FILES`."""
    checked, problems, skipped = [], list[Problem](), set()
    secrets = _secrets(directory)
    for name in names:
        path = directory / name
        if (flaw := _unusable(path)) is not None:
            problems.append(Problem(name, None, flaw, "stack check"))
            continue
        kind = _KINDS[Path(name).name]
        found = _by_keys(name, path.read_text(errors="replace"), kind)
        by = [_BY_KEYS]
        if kind.daemon is not None:
            verdict = kind.daemon(path, name)
            if verdict.program is None:
                skipped.add(verdict.missing)
            else:
                by.append(verdict.program)
                lines = {problem.line for problem in found}
                found += [each for each in verdict.problems if each.line not in lines - {None}]
        checked.append(Checked(name, tuple(by)))
        problems += sorted(found, key=lambda each: each.line or 0)
    problems = [attrs.evolve(each, text=_without(secrets, each.text)) for each in problems]
    return Report(tuple(checked), tuple(problems), tuple(sorted(skipped)))


def _secrets(directory: Path) -> re.Pattern[str]:
    """What no problem may quote: a torn line has a secret where a key should be (P12)."""
    path = directory / credentials.FILE
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    values = {line.partition("=")[2].strip() for line in lines if not line.startswith("#")}
    own = (re.escape(value) for value in sorted(values, key=len, reverse=True) if value)
    return re.compile("|".join((*own, *credentials.SHAPES)))


def _without(secrets: re.Pattern[str], text: str) -> str:
    return secrets.sub("***", text)


def _unusable(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
        path.open("rb").close()
    except OSError as error:
        return f"cannot be read: {error.strerror}; write it: stack write {path.parent}"
    # Sentinel rewrites its file with mode 0644; its folder keeps others out all the same.
    if mode & 0o077 and path.parent.stat().st_mode & 0o011:
        return f"others may read or write it (mode {mode & 0o777:04o}): chmod 600"
    return None


def _by_keys(name: str, text: str, kind: _Kind) -> list[Problem]:
    problems = []
    for found in kind.reader(text):
        if not isinstance(found, Entry):
            problems.append(Problem(name, found.line, found.text, _BY_KEYS))
        elif kind.known and not any(_is_known(found.key, each) for each in kind.known):
            problems.append(Problem(name, found.line, f"unknown key {found.key!r}", _BY_KEYS))
    return problems


def _is_known(key: str, name: str) -> bool:
    known = _known(name)
    # PostgreSQL's names have no case, and no other list has two names that differ by case only.
    if key in known.plain or key.lower() in known.plain:
        return True
    return known.pattern.fullmatch(key) is not None and known.closed.fullmatch(key) is None


@attrs.frozen
class _Known:
    """A list in known/: its keys, those with a $word or ** in them, and what these keep out."""

    plain: frozenset[str]
    pattern: re.Pattern[str]
    closed: re.Pattern[str]


@cache
def _known(name: str) -> _Known:
    text = (files("telegram_hybrid.stack") / "known" / f"{name}.txt").read_text()
    keys = [line for line in text.splitlines() if line and not line.startswith("#")]
    patterns = [_pattern(key) for key in keys if "$" in key or "**" in key]
    closed = [_pattern(key[1:]) for key in keys if key.startswith("!")]
    return _Known(frozenset(keys), _any_of(patterns), _any_of(closed))


def _any_of(patterns: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(patterns) or r"(?!)")


def _pattern(key: str) -> str:
    words = {"**": ".*", "[]": r"\[\]"}
    steps = [
        words.get(step) or (r"[^.]+" if step.startswith("$") else re.escape(step))
        for step in key.split(".")
    ]
    return r"\.".join(steps).replace(r"\..*", r"(\..*)?")
