"""Redis addresses: what a URL says, checked before any I/O, and without its secrets in errors.

Besides redis-py's redis://, rediss:// and unix:// there is

    redis+sentinel://user:password@h1:26379,h2:26379/telegram-redis/0?direct=h:6379

where user and password are the nodes'. Its query may hold `sentinel_username`,
`sentinel_password`, `direct` (who to ask when no sentinel answers), `tls=true` and
`sentinel_tls=true`, `map=10.0.0.2:6379=localhost:6380,...` (for every address that a server
names), redis-py's own options for the nodes (`socket_timeout=1`, `ssl_ca_certs=...`), and those
of TLS with the prefix `sentinel_` for the sentinels (`sentinel_ssl_ca_certs=...`).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import attrs
import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionPool, SSLConnection, parse_url
from redis.retry import Retry

from telegram_hybrid.connect.redis.discovery import Address
from telegram_hybrid.errors import ConfigurationError

#: Seconds for one reply and for one connection attempt: the database answers within that time,
#: so waiting longer for a cache is never worth it.
TIMEOUT = 0.25

SENTINEL_SCHEME = "redis+sentinel"
_SENTINEL_FORM = "expected redis+sentinel://[user:password@]host:26379[,host:26379]/master/0"
_FORM = "expected redis://[user:password@]host:port/db"


@attrs.frozen(slots=True, kw_only=True)
class Target:
    """Where a URL leads: to one server, or to whom the sentinels name if there are `sentinels`.

    The options are redis-py's for one connection; they hold the passwords and do not show.
    """

    connection_class: type[Any]
    options: dict[str, Any] = attrs.field(repr=False)
    max_connections: int | None = None
    sentinels: tuple[Address, ...] = ()
    sentinel_class: type[Any] = Connection
    sentinel_options: dict[str, Any] = attrs.field(factory=dict, repr=False)
    master_name: str = ""
    direct: Address | None = None
    address_map: dict[Address, Address] = attrs.field(factory=dict)


class _Malformed(Exception):
    """What is wrong with a URL, in words that quote nothing of it."""


def parse(url: str) -> Target:
    """Read a URL; raises `ConfigurationError`, without its secrets, if it makes no client."""
    try:
        return _sentinels(url) if url.startswith(f"{SENTINEL_SCHEME}://") else _server(url)
    except _Malformed as error:
        problem = str(error)
    # A parser's own words may quote a password (redis://user:password has a port for it), so they
    # are neither repeated nor chained: this is raised outside of every except block.
    raise ConfigurationError(f"TELEGRAM_REDIS_URL {problem}")


def _server(url: str) -> Target:
    problem = _problem_of(url)
    if problem is not None:
        raise _Malformed(problem)
    return _target(url)


def _target(url: str, connection_class: type[Any] | None = None, **more: Any) -> Target:
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "health_check_interval": 0,
        "client_name": "telegram_hybrid",
    }
    try:
        options |= parse_url(url)  # type: ignore[no-untyped-call]
        options |= {"decode_responses": False, "retry": Retry(NoBackoff(), 0)}
        kind = connection_class or options.pop("connection_class", Connection)
        limit = options.pop("max_connections", None)
        pool = ConnectionPool(kind, limit, **options)
        pool.connection_class(**pool.connection_kwargs)  # opens nothing, refuses bad options
    except (TypeError, ValueError, redis.RedisError):
        raise _Malformed("has an option that redis-py does not know or cannot use") from None
    return Target(connection_class=kind, options=options, max_connections=limit, **more)


def _problem_of(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return f"is malformed; {_FORM}"
    if parts.scheme not in ("redis", "rediss", "unix"):
        return f"must begin with redis://, rediss://, unix:// or {SENTINEL_SCHEME}://"
    if parts.scheme == "unix":
        return None if parts.path else "names no socket; expected unix:///path/to/redis.sock"
    if not host:
        return f"names no host; {_FORM}"
    if not parts.path.strip("/").isdigit() and parts.path.strip("/"):
        return "ends with a database that is not a number; expected redis://host:port/0"
    return None


def _sentinels(url: str) -> Target:
    # Several hosts are no host to urlsplit, which since 2025 refuses [::1] behind another one.
    place, slash, rest = url.removeprefix(f"{SENTINEL_SCHEME}://").partition("/")
    if not slash:
        raise _Malformed(f"names no master; {_SENTINEL_FORM}")
    parts = urlsplit(f"/{rest}")
    user, _, hosts = place.rpartition("@")
    name, _, database = parts.path.strip("/").partition("/")
    if not name:
        raise _Malformed(f"names no master; {_SENTINEL_FORM}")
    if database and not database.isdecimal():
        raise _Malformed(f"ends with a database that is not a number; {_SENTINEL_FORM}")
    options = dict(parse_qsl(parts.query))
    ours = {
        key: options.pop(key, "") for key in ("direct", "map", "tls", "sentinel_tls", "password")
    }
    if ours["password"]:
        raise _Malformed(f"has the password in its query; {_SENTINEL_FORM}")
    sentinel_options = {
        key.removeprefix("sentinel_"): options.pop(key)
        for key in list(options)
        if key.startswith("sentinel_")
    }
    credentials = f"{user}@" if user else ""
    nodes = f"redis://{credentials}sentinel/{database}?{urlencode(options)}"
    return _target(
        nodes,
        SSLConnection if _flag(ours["tls"], "tls") else Connection,
        sentinels=_addresses(hosts, 26379, "its hosts"),
        sentinel_class=SSLConnection if _flag(ours["sentinel_tls"], "sentinel_tls") else Connection,
        sentinel_options=_sentinel_options(sentinel_options, ours["sentinel_tls"]),
        master_name=unquote(name),
        direct=_address(ours["direct"], "direct") if ours["direct"] else None,
        address_map=_address_map(ours["map"]),
    )


def _sentinel_options(given: dict[str, str], tls: str) -> dict[str, Any]:
    user, password = given.pop("username", ""), given.pop("password", "")
    credentials = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    url = f"redis://{credentials}sentinel?{urlencode(given)}"
    found = _target(url, SSLConnection if _flag(tls, "sentinel_tls") else Connection)
    return {key: value for key, value in found.options.items() if key not in ("host", "port", "db")}


def _flag(text: str, name: str) -> bool:
    known = {"": False, "0": False, "false": False, "no": False}
    known |= {"1": True, "true": True, "yes": True}
    if text.lower() not in known:
        raise _Malformed(f"has a {name} that is neither true nor false")
    return known[text.lower()]


def _addresses(text: str, port: int, what: str) -> tuple[Address, ...]:
    found = []
    for each in text.split(","):
        try:
            parts = urlsplit(f"//{each.strip()}")
            host, number = parts.hostname, parts.port
        except ValueError:
            raise _Malformed(f"has a malformed host or port in {what}") from None
        if not host or parts.path or parts.username or "=" in host:
            raise _Malformed(f"names no host in {what}; {_SENTINEL_FORM}")
        found.append(Address(host, number or port))
    return tuple(found)


def _address(text: str, what: str) -> Address:
    found = _addresses(text, 6379, what)
    if len(found) > 1:
        raise _Malformed(f"names more than one host in {what}")
    return found[0]


def _address_map(text: str) -> dict[Address, Address]:
    found = {}
    for each in filter(None, text.split(",")):
        told, separator, real = each.partition("=")
        if not separator:
            raise _Malformed("has a map that is not announced:port=reachable:port,...")
        found[_address(told, "map")] = _address(real, "map")
    return found
