"""Cluster: pg_hba.conf and init.sql, judged by a PostgreSQL that lives for a second or two.

Neither has a dry run. The server is made and started in a folder of its own, on a socket there
and on no port; what `init.sql` makes goes with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from telegram_hybrid.stack import formats, programs
from telegram_hybrid.stack.problem import Problem
from telegram_hybrid.stack.programs import Verdict

#: Where Debian and Red Hat keep PostgreSQL's programs.
FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
_INITDB = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
_QUIET = ("listen_addresses=", "fsync=off", "log_destination=stderr", "logging_collector=off")
_RULE = re.compile(r"LOG:\s+([^\n]*)\n(?:[^\n]*HINT:[^\n]*\n)?[^\n]*CONTEXT:\s+line (\d+) of ")
_STATEMENT = re.compile(r"psql:[^\n]*?:(\d+): (?:ERROR|FATAL|error):\s+([^\n]*)(?:\nLINE (\d+):)?")


def host_rules(path: Path, name: str) -> Verdict:
    """PostgreSQL does not start with a pg_hba.conf that it does not understand."""
    program = programs.find("postgres", *FOLDERS)
    if program is None:
        return Verdict(None, missing="postgres")
    version = programs.version_of(program)
    with _server(Path(program), path.read_text(errors="replace")) as (_, said, up):
        if up:
            return Verdict(version)
    problems = [Problem(name, int(found[2]), found[1], version) for found in _RULE.finditer(said)]
    last = Problem(name, None, programs.last_line(said), version)
    return Verdict(version, tuple(problems or [last]))


def statements(path: Path, name: str) -> Verdict:
    """psql runs the file in the new cluster, as the deployment does, and stops at an error."""
    program, psql = programs.find("postgres", *FOLDERS), programs.find("psql", *FOLDERS)
    if program is None or psql is None:
        return Verdict(None, missing="postgres" if program is None else "psql")
    version = programs.version_of(program)
    with _server(Path(program), "local all all trust\n") as (folder, said, up):
        if not up:
            return Verdict(version, (Problem(name, None, programs.last_line(said), version),))
        to = ["-h", str(folder), "-p", "5432", "-U", "postgres", "-d", "postgres"]
        how = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(path.absolute())]
        done = programs.run([psql, *to, *how], env={**os.environ, "LC_ALL": "C"})
    begun = [each.line for each in formats.statements(path.read_text(errors="replace"))]
    problems = []
    for found in _STATEMENT.finditer(done.stderr):
        # psql names the line in which the statement ends, and the server the one within it.
        first = max((line for line in begun if line <= int(found[1])), default=int(found[1]))
        number = first + int(found[3]) - 1 if found[3] else first
        problems.append(Problem(name, number, found[2], version))
    return programs.verdict(name, version, problems, done, done.returncode != 0)


@contextmanager
def _server(postgres: Path, rules: str) -> Iterator[tuple[Path, str, bool]]:
    """A new cluster with these host rules: its folder, what it said, and whether it serves."""
    with programs.scratch() as folder:
        user, data = programs.owner(folder), folder / "data"
        initdb = [str(postgres.with_name("initdb")), "-D", str(data), *_INITDB]
        made = programs.run(initdb, user=user)
        if made.returncode != 0:
            yield folder, made.stderr or made.stdout, False
            return
        (data / "pg_hba.conf").write_text(rules)
        settings = [word for each in _QUIET for word in ("-c", each)]
        command = [str(postgres), "-D", str(data), "-k", str(folder), "-p", "5432", *settings]
        ready = "ready to accept connections"
        with programs.running(command, ready, folder, user) as (said, up):
            yield folder, said, up
