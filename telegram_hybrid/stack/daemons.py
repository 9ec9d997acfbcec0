"""Daemons: what each real program says of its file, asked on a copy and without serving anybody.

Which question gives a quick and true answer was measured on PostgreSQL 15, PgBouncer 1.18,
Redis 7.0, RabbitMQ 3.10 and systemd 252; each takes less than a second or two.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from telegram_hybrid.stack import programs
from telegram_hybrid.stack.cluster import FOLDERS
from telegram_hybrid.stack.problem import Problem
from telegram_hybrid.stack.programs import Verdict

_REDIS_FLAW = re.compile(r"at line (\d+)\n>>> '([^\n]*)'\n([^\n]+)")
_POSTGRES_PLACE = re.compile(r' in file "[^"]*" line (\d+)')
# Of the plugin, written in Go, and of the older program, written in Python.
_COMPOSE_KEY = re.compile(
    r"propert(?:y|ies) '?([\w.-]+)'? (?:is |was )?not|Unsupported config option[^:]*: '([\w.-]+)'"
)
_PGBOUNCER_PLACE = re.compile(r"\(([^():]+):(\d+)\)")


def postgres(path: Path, name: str) -> Verdict:
    """`postgres -C` reads the whole file, refuses what it does not know, and ends."""
    program = programs.find("postgres", *FOLDERS)
    if program is None:
        return Verdict(None, missing="postgres")
    # First, because only then root may ask.
    done = programs.run([program, "-C", "port", "-c", f"config_file={path.absolute()}"])
    version = programs.version_of(program)
    problems = []
    for line in done.stderr.splitlines():
        said = line.partition("LOG:")[2].strip()
        if done.returncode and said and not said.startswith("skipping missing"):
            place = _POSTGRES_PLACE.search(said)
            number = int(place[1]) if place else programs.line_of(path, _quoted(said))
            text = _POSTGRES_PLACE.sub("", said)
            problems.append(Problem(name, number, text, version))
    return programs.verdict(name, version, problems, done, done.returncode != 0)


def pgbouncer(path: Path, name: str) -> Verdict:
    """PgBouncer has no dry run: it reads the file, opens a socket in a folder of its own, ends."""
    program = programs.find("pgbouncer", "/usr/sbin")
    if program is None:
        return Verdict(None, missing="pgbouncer")
    version = programs.version_of(program)
    with programs.scratch() as folder:
        text = path.read_text(errors="replace")
        users = folder / "userlist.txt"
        users.write_text("")
        (folder / "copy.ini").write_text(_replaced(text, "auth_file", f"auth_file = {users}"))
        wrapper = folder / "wrapper.ini"
        quiet = {"listen_addr": "", "unix_socket_dir": folder, "logfile": "", "pidfile": ""}
        overrides = "".join(f"{key} = {value}\n" for key, value in quiet.items())
        wrapper.write_text(f"%include {folder}/copy.ini\n[pgbouncer]\n{overrides}")
        user = programs.owner(folder)
        with programs.running([program, str(wrapper)], "process up", folder, user) as told:
            said, up = told
    problems = []
    reason = ""
    for line in said.splitlines():
        message = re.sub(r"^.*? (ERROR|FATAL|WARNING) ", "", line)
        place = _PGBOUNCER_PLACE.search(message)
        if place and place[1].endswith("copy.ini"):
            problems.append(Problem(name, int(place[2]), reason or message, version))
        reason = message if message.startswith("un") else ""  # "unknown parameter: ..."
    if up or problems:
        return Verdict(version, tuple(problems))
    return Verdict(version, (Problem(name, None, programs.last_line(said), version),))


def redis(path: Path, name: str) -> Verdict:
    """redis-server without any port reads the file, finds nothing to listen on, and ends."""
    return _redis(path, name, [])


def sentinel(path: Path, name: str) -> Verdict:
    """As `redis`; on a copy, because Sentinel rewrites its file."""
    return _redis(path, name, ["--sentinel"])


def _redis(path: Path, name: str, options: Sequence[str]) -> Verdict:
    program = programs.find("redis-server") or programs.find("valkey-server")
    if program is None:
        return Verdict(None, missing="redis-server")
    version = programs.version_of(program)
    with programs.scratch() as folder:
        copy = folder / path.name
        text = _replaced(path.read_text(errors="replace"), "dir", f"dir {folder}")
        copy.write_text(text)
        silent = ["--port", "0", "--unixsocket", "", "--save", "", "--daemonize", "no"]
        done = programs.run([program, str(copy), *options, *silent], cwd=folder)
    said = done.stdout + done.stderr
    problems = [
        Problem(name, int(found[1]), f"{found[3]}: {_without_value(found[2])}", version)
        for found in _REDIS_FLAW.finditer(said)
    ]
    fine = "Configured to not listen anywhere" in said
    return programs.verdict(name, version, problems, done, not fine)


def rabbitmq(path: Path, name: str) -> Verdict:
    """RabbitMQ's own reader (cuttlefish) over its own schemas, in a bare Erlang VM."""
    erl = programs.find("erl")
    plugins = _rabbitmq_plugins()
    if erl is None or plugins is None:
        return Verdict(None, missing="rabbitmq-server")
    version = re.sub(r".*rabbitmq_server-([\d.]+).*", r"rabbitmq-server \1", str(plugins))
    command = [erl, "+S", "1:1", "-noinput", "-boot", "start_clean", "-kernel", "logger_level"]
    command += ["none", "-pa", *map(str, sorted(plugins.glob("*/ebin"))), "-eval", _CUTTLEFISH]
    with programs.scratch() as folder:
        copy, definitions = folder / path.name, folder / "definitions.json"
        definitions.write_text("{}")  # it only has to be there, and in a container it is elsewhere
        text = path.read_text(errors="replace")
        copy.write_text(_replaced(text, "load_definitions", f"load_definitions = {definitions}"))
        own = {"STACK_CONF": str(copy), "STACK_PLUGINS": str(plugins)}
        done = programs.run(command, env={**os.environ, **own})
    problems = []
    for line in done.stdout.splitlines():
        if line.startswith("problem "):
            text = line.removeprefix("problem ")
            syntax = re.search(r"line (\d+)", text)
            number = int(syntax[1]) if syntax else programs.line_of(path, text)
            problems.append(Problem(name, number, text, version))
    if any(problem.line for problem in problems):  # "bad value" follows "in this key"
        problems = [problem for problem in problems if problem.line]
    return programs.verdict(name, version, problems, done, "fine" not in done.stdout.split())


_CUTTLEFISH = r"""
Plugins = os:getenv("STACK_PLUGINS"),
Say = fun(Errors) -> [io:format("problem ~ts~n", [lists:flatten(string:replace(
    lists:flatten(cuttlefish_error:xlate(E)), "\n", " ", all))]) || {error, E} <- Errors] end,
Schema = cuttlefish_schema:files(filelib:wildcard(
    Plugins ++ "/{rabbit,rabbitmq_management,rabbitmq_management_agent,rabbitmq_prometheus}-*"
    ++ "/priv/schema/*.schema")),
case cuttlefish_conf:files([os:getenv("STACK_CONF")]) of
    {errorlist, Errors} -> Say(Errors);
    Conf -> case cuttlefish_generator:map(Schema, Conf) of
        {error, _, {errorlist, Errors}} -> Say(Errors);
        _ -> io:format("fine~n")
    end
end,
halt().
"""


def systemd(path: Path, name: str) -> Verdict:
    """`systemd-analyze verify`, which only warns of what it does not know."""
    program = programs.find("systemd-analyze")
    if program is None:
        return Verdict(None, missing="systemd-analyze")
    quiet = ["--man=no", "--recursive-errors=no"]
    done = programs.run([program, "verify", *quiet, str(path.absolute())])
    version = programs.version_of(program)
    problems = []
    for line in done.stderr.splitlines():
        found = re.match(rf"{re.escape(str(path.absolute()))}:(\d+): (.*)", line)
        if found:
            problems.append(Problem(name, int(found[1]), found[2], version))
        elif line.startswith(f"{path.name}: ") and "ommand" in line:
            number = programs.line_of(path, "ExecStart")
            problems.append(Problem(name, number, line.removeprefix(f"{path.name}: "), version))
    return Verdict(version, tuple(problems))


def shell(path: Path, name: str) -> Verdict:
    """`sh -n` reads the script and runs nothing."""
    done = programs.run(["/bin/sh", "-n", str(path)])
    place = re.search(r": (\d+): (.*)", done.stderr)
    problems = [Problem(name, int(place[1]), place[2], "sh -n")] if place else []
    return programs.verdict(name, "sh -n", problems, done, done.returncode != 0)


def compose(path: Path, name: str) -> Verdict:
    """`docker compose config`, by the plugin or the program of that name; needs no engine."""
    docker = programs.find("docker")
    if docker and programs.run([docker, "compose", "version"]).returncode == 0:
        command = [docker, "compose"]
    elif alone := programs.find("docker-compose"):
        command = [alone]
    else:
        return Verdict(None, missing="docker compose")
    done = programs.run([*command, "-f", str(path), "config", "-q"])
    said = done.stderr.strip()
    place = re.search(r"line (\d+)", said)
    wanted = _COMPOSE_KEY.search(said)
    key = wanted and (wanted[1] or wanted[2])
    # What names no key names a service, a network or a volume that is not defined.
    number = int(place[1]) if place else programs.line_of(path, key or said)
    program = "docker compose config"
    problem = Problem(name, number, programs.last_line(said), program)
    return Verdict(program, (problem,) if done.returncode else ())


def _rabbitmq_plugins() -> Path | None:
    """The folder of the plugins beside the server's scripts: Debian's, or one in the path."""
    found = shutil.which("rabbitmq-server")
    servers = [Path("/usr/lib/rabbitmq/bin/rabbitmq-server"), *([Path(found)] if found else [])]
    for server in servers:
        plugins = server.resolve().parents[1] / "plugins"
        if any(plugins.glob("cuttlefish-*/ebin")):
            return plugins
    return None


def _replaced(text: str, key: str, line: str) -> str:
    """`text` with every line that sets `key` replaced, so that the numbers stay."""
    return re.sub(rf"(?m)^[ \t]*{key}\b[^\n]*$", lambda _: line, text)


def _without_value(line: str) -> str:
    """The directive of a line without its arguments, of which one may be a secret."""
    words = line.split()
    return " ".join(words[: 2 if words[:1] == ["sentinel"] else 1])


def _quoted(text: str) -> str:
    found = re.search(r'"([^"]+)"', text)
    return found[1] if found else ""
