"""One wrong key for every file of a deployment, as somebody's typing error would leave it."""

import re
from pathlib import Path

from telegram_hybrid.stack import FILES

_APPENDED = {
    "start.sh": ")",
    ".env": "TELEGRAM_NONSENSE=1",
    "secrets.env": "NONSENSE_PASSWORD=1",
    "postgresql.conf": "nonsense_key = 1",
    "pg_hba.conf": "nonsense all all 127.0.0.1/32 trust",
    "init.sql": "NONSENSE ROLE telegram;",
    "pgbouncer.ini": "nonsense_key = 1",
    "userlist.txt": "nonsense",
    "redis.conf": "nonsense-key 1",
    "sentinel.conf": "sentinel nonsense-key telegram-redis 1",
    "rabbitmq.conf": "nonsense.key = 1",
}
_REPLACED = {
    "compose.yaml": ("    image:", "    imgae:"),
    "definitions.json": ('"apply-to"', '"aply-to"'),
    "enabled_plugins": ("rabbitmq_management", "rabbitmq_managment"),
    "telegram-relay.service": ("NoNewPrivileges=", "NoNewPrivilegs="),
    "telegram-consumer.service": ("NoNewPrivileges=", "NoNewPrivilegs="),
}
#: Whose program reads the keys; the others are known by our lists alone.
WITH_DAEMON = [
    name
    for name in FILES
    if Path(name).name
    in {
        "compose.yaml",
        "start.sh",
        "postgresql.conf",
        "pg_hba.conf",
        "init.sql",
        "pgbouncer.ini",
        "redis.conf",
        "sentinel.conf",
        "rabbitmq.conf",
        "telegram-relay.service",
        "telegram-consumer.service",
    }
]


def mutate(directory: Path, name: str) -> int:
    """Put one unknown key into a file, and return its line."""
    path = directory / name
    text = path.read_text()
    if path.name in _APPENDED:
        path.write_text(f"{text}{_APPENDED[path.name]}\n")
        return text.count("\n") + 1
    old, new = _REPLACED[path.name]
    at = re.search(re.escape(old), text)
    assert at is not None
    path.write_text(text.replace(old, new, 1))
    return text.count("\n", 0, at.start()) + 1
