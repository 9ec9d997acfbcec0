"""Formats: the lines of each kind of configuration file, as keys with their line numbers.

Each reader yields an `Entry` for every setting and a `Flaw` for every line that is none. They
read what the daemons read, as far as keys go; the values are the daemons' own business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import attrs

_POSTGRESQL = re.compile(r"([A-Za-z_][\w$]*(?:\.[A-Za-z_][\w$]*)*)\s*(?:=\s*|\s+)\S")
_RABBITMQ = re.compile(r"([A-Za-z0-9_]+(?:\.[^\s=]+)*)\s*=\s*\S")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*=")
_ENVIRONMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=\S")
_SECTION = re.compile(r"\[([A-Za-z]+)\]")
_USER = re.compile(r'"[^"]+" "[^"]*"')
_PLUGINS = re.compile(r"\[\s*([a-z0-9_]+(\s*,\s*[a-z0-9_]+)*)?\s*\]\.\s*")


@attrs.frozen
class Entry:
    """One setting: `key` in full, with its section ("pgbouncer.pool_mode")."""

    line: int
    key: str


@attrs.frozen
class Flaw:
    """A line that is no setting, and why."""

    line: int
    text: str


Reader = Callable[[str], Iterator[Entry | Flaw]]


def _lines(text: str, comments: str = "#") -> Iterator[tuple[int, str]]:
    """Lines that say something, stripped, with their numbers from 1."""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped and stripped[0] not in comments:
            yield number, stripped


def _flat(pattern: re.Pattern[str], wanted: str) -> Reader:
    def read(text: str) -> Iterator[Entry | Flaw]:
        for number, line in _lines(text):
            found = pattern.match(line)
            yield Entry(number, found[1]) if found else Flaw(number, f"not {wanted}")

    return read


postgresql = _flat(_POSTGRESQL, "key = value")
rabbitmq = _flat(_RABBITMQ, "key = value")
environment = _flat(_ENVIRONMENT, "NAME=value")


def redis(text: str) -> Iterator[Entry | Flaw]:
    """redis.conf and sentinel.conf: "directive argument...", "sentinel directive argument..."."""
    for number, line in _lines(text):
        words = line.split()
        key = words.pop(0).lower()
        if key == "sentinel" and words:
            key = f"sentinel.{words.pop(0).lower()}"
        yield Entry(number, key) if words else Flaw(number, f"{key!r} without a value")


def pgbouncer(text: str) -> Iterator[Entry | Flaw]:
    """Sections; under [databases] and [users] the keys are in the values."""
    section = ""
    for number, line in _lines(text, "#;"):
        if found := _SECTION.fullmatch(line):
            section = found[1].lower()
            if section not in ("databases", "users", "pgbouncer"):
                yield Flaw(number, f"unknown section [{section}]")
        elif "=" not in line:
            yield Flaw(number, "not key = value")
        elif section == "pgbouncer":
            yield Entry(number, f"pgbouncer.{line.partition('=')[0].strip()}")
        else:
            for key in re.findall(r"(\w+)\s*=", line.partition("=")[2]):
                yield Entry(number, f"{section}.{key}")


def systemd(text: str) -> Iterator[Entry | Flaw]:
    """Sections, and values that a backslash continues."""
    section, continued = "", False
    for number, line in _lines(text, "#;"):
        if continued:
            continued = line.endswith("\\")
        elif found := _SECTION.fullmatch(line):
            section = found[1]
        elif found := _ASSIGNMENT.match(line):
            continued = line.endswith("\\")
            yield Entry(number, f"{section}.{found[1]}")
        else:
            yield Flaw(number, "not Key=value")


def host_rules(text: str) -> Iterator[Entry | Flaw]:
    """pg_hba.conf: the type of a connection and the method are what may be unknown."""
    for number, line in _lines(text):
        words = line.split()
        place = 3 if words[0] == "local" else 4
        yield Entry(number, f"type.{words[0]}")
        if len(words) <= place:
            yield Flaw(number, "not type, database, user, address (unless local) and method")
        else:
            yield Entry(number, f"method.{words[place]}")


def users(text: str) -> Iterator[Entry | Flaw]:
    """userlist.txt: a quoted name and a quoted password in each line."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not _USER.fullmatch(line.strip()):
            yield Flaw(number, 'not "user" "password"')


def plugins(text: str) -> Iterator[Entry | Flaw]:
    """enabled_plugins: one Erlang list of names with a full stop behind it."""
    if not _PLUGINS.fullmatch(text):
        yield Flaw(1, "not a list of plugins: [name, name].")
    for number, line in enumerate(text.splitlines(), 1):
        for name in re.findall(r"[a-z0-9_]+", line):
            yield Entry(number, name)


def statements(text: str) -> Iterator[Entry | Flaw]:
    """SQL for psql: the first word of each statement and each backslash command."""
    quoted, begins = False, True
    for number, line in enumerate(text.splitlines(), 1):
        code = line.partition("--")[0].strip()
        if not code:
            continue
        if begins and not quoted:
            yield Entry(number, code.split()[0].rstrip(";"))
        quoted ^= code.count("$$") % 2 == 1
        begins = code.endswith(";") or code.startswith("\\")


def tree(text: str) -> Iterator[Entry | Flaw]:
    """YAML (and JSON, which is YAML): the path of every key; "[]" is any item of a list.

    Raises `ModuleNotFoundError` where PyYAML is not installed.
    """
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        yield Flaw(mark.line + 1 if mark else 1, f"not YAML: {error.problem}")
        return
    if not isinstance(root, yaml.MappingNode):
        yield Flaw(1, "not a mapping")
        return
    waiting = [(root, "")]
    seen: set[tuple[int, str]] = set()
    while waiting:
        node, path = waiting.pop()
        generic = re.sub(r"^(services|networks|volumes)\.[^.]+", r"\1.", path)
        if (id(node), generic) in seen:  # an anchor's node, met again by an alias
            continue
        seen.add((id(node), generic))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == "<<":  # merged: its keys are keys of this mapping
                    waiting.append((value, path))
                    continue
                if str(key.value).startswith("x-"):  # an extension; seen where it is merged
                    continue
                inner = f"{path}.{key.value}" if path else str(key.value)
                yield Entry(key.start_mark.line + 1, inner)
                waiting.append((value, inner))
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend((item, f"{path}.[]") for item in node.value)


def json_tree(text: str) -> Iterator[Entry | Flaw]:
    """JSON: as `tree`, but strictly JSON."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        yield Flaw(error.lineno, f"not JSON: {error.msg}")
        return
    yield from tree(text)


def script(text: str) -> Iterator[Entry | Flaw]:
    """A shell script: nothing is known of it but its first line."""
    if not text.startswith("#!/bin/sh\n"):
        yield Flaw(1, "not a script for /bin/sh")
