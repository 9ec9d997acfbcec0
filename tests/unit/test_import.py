"""Importing the package: no socket, no file but modules, no driver, and quick."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# Audit events tell of every file and socket that is opened (PEP 578).
PROBE = """
import json, sys, time
opened = []
def watch(event, arguments):
    if event == "open" and not str(arguments[0]).endswith((".py", ".pyc", ".so")):
        opened.append(str(arguments[0]))
    if event.startswith(("socket.", "subprocess.", "os.system")):
        opened.append(event)
sys.addaudithook(watch)
begin = time.process_time()
import telegram_hybrid
seconds = time.process_time() - begin
names = [name.split(".")[0] for name in sys.modules]
print(json.dumps({"seconds": seconds, "opened": opened, "modules": sorted(set(names))}))
"""


@pytest.fixture(scope="module")
def imported() -> dict:
    runs = [
        json.loads(
            subprocess.run([sys.executable, "-c", PROBE], capture_output=True, check=True).stdout
        )
        for _ in range(3)
    ]
    return min(runs, key=lambda run: run["seconds"])


def test_importing_opens_no_socket_and_no_file(imported: dict) -> None:
    # Broken on purpose: an open(os.devnull) or socket.socket() in __init__.py is listed here.
    assert imported["opened"] == []


def test_importing_loads_no_driver(imported: dict) -> None:
    drivers = {"sqlalchemy", "psycopg", "redis", "kombu", "alembic", "ijson", "typer", "rich"}
    assert not drivers & set(imported["modules"])


def test_importing_takes_less_than_four_tenths_of_a_second(imported: dict) -> None:
    # Of processor time: it does nothing but compute, and other tests share the machine.
    assert imported["seconds"] < 0.4


def test_every_public_name_is_there() -> None:
    import telegram_hybrid

    for name in telegram_hybrid.__all__:
        assert getattr(telegram_hybrid, name) is not None
    assert list(telegram_hybrid.__all__) == sorted(telegram_hybrid.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        telegram_hybrid.nothing  # noqa: B018


def test_rooms_that_are_calls_stay_calls_after_they_are_imported() -> None:
    # Broken on purpose: as plain functions both are modules after these imports.
    import telegram_hybrid.connect.postgres
    import telegram_hybrid.embedded.servers

    assert callable(telegram_hybrid.connect)
    assert callable(telegram_hybrid.embedded)
    assert telegram_hybrid.connect.postgres.open_engine is not None
