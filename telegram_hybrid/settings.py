"""Settings: where the servers are and what our things are called there; read, never guessed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import attrs

from telegram_hybrid.errors import ConfigurationError
from telegram_hybrid.model import UnknownChannels

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_HOST = r"(\[[0-9A-Za-z:.%]+\]|[^:;,\[\]]*)(:[0-9]{0,5})?"
_HOSTS = re.compile(f"{_HOST}(,{_HOST})*")
_QUERY = re.compile(r"[^=&]+=[^&]*(&[^=&]+=[^&]*)*")
_NO, _YES = ("0", "false", "no"), ("1", "true", "yes")
_EXCHANGE = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
_DATABASE_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
_REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel")
#: The least seconds for which a queue may be told to remember what it has dealt with. That exceeds
#: the longest redelivery, which is of an event whose consumer hangs: RabbitMQ takes it back after
#: `consumer_timeout`, 30 minutes by default.
LEAST_INBOX_WINDOW = 3_600.0
#: How many seconds a partition or chunk of messages may hold.
LEAST_INTERVAL, MOST_INTERVAL = 3_600.0, 3_650 * 86_400.0
_BROKER_SCHEMES = ("amqp", "amqps", "pyamqp", "redis", "rediss", "redis+socket")


def without_secret(url: str | None) -> str | None:
    """Return `url` with its password replaced by "***" (P12).

    For any string: what does not read as a URL is not shown at all.
    """
    if url is None:
        return None
    if _problem(url) is not None:
        return "<malformed url>"
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    netloc = f"{user}:***@{hosts}" if colon else f"{credentials}{at}{hosts}"
    query = "***" if "password" in parts.query.lower() else parts.query
    shown = f"{parts.scheme}://{netloc}{parts.path}"
    return f"{shown}?{query}" if query else shown


def _masked(url: str | None) -> str:
    return repr(without_secret(url))


def _url(*schemes: str) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    def check(_: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
        if value is None:
            return
        scheme, separator, _rest = value.partition("://")
        if not separator or scheme not in schemes:
            known = ", ".join(f"{name}://" for name in schemes)
            raise ConfigurationError(f"{attribute.name}: expected a URL that begins with {known}")
        if problem := _problem(value):
            raise ConfigurationError(f"{attribute.name}: {problem}")

    return check


def _problem(url: str) -> str | None:
    """Say what keeps `url` from being taken apart in one way only, without quoting it.

    A password with a raw "#" or "/" ends up in other parts of the URL, from where parsers quote
    it in their errors and nobody knows any more that it is one.
    """
    special = (
        "in user and password, write special characters percent-encoded: "
        "%40 for @, %2F for /, %23 for #, %3F for ?"
    )
    if not url.isprintable() or " " in url or "#" in url:
        return f"a URL holds no '#', spaces or control characters; {special}"
    _, separator, rest = url.partition("://")
    address, _, query = rest.partition("?")
    authority, _, path = address.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    if not separator or re.search(r"[\[\];@]", credentials):
        return f"not a URL; {special}"
    if (authority and "@" in path) or (authority and not at and "@" in query):
        return f"an '@' after the host; {special}"
    if query and not _QUERY.fullmatch(query):
        return f"after '?', expected name=value; {special}"
    if not _HOSTS.fullmatch(hosts):
        return f"after the host only a port number may follow; {special}"
    try:
        urlsplit(url)
    except ValueError:
        return f"not a URL; {special}"
    return None


def _identifier(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not _NAME.fullmatch(value):
        raise ConfigurationError(
            f"{attribute.name}: {value!r} is not a plain lower-case name of at most 48 characters"
        )


def _exchange(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not _EXCHANGE.fullmatch(value):
        raise ConfigurationError(
            f"{attribute.name}: {value!r} is not 1 to 200 letters, digits, '_', '.', ':' or '-'"
        )


def _unknown_channels(value: Any) -> UnknownChannels:
    try:
        return UnknownChannels(value)
    except ValueError:
        raise ConfigurationError(
            f"unknown_channels: {value!r} is neither 'register' nor 'refuse'"
        ) from None


def _positive(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 < value < 1e9:
        raise ConfigurationError(f"{attribute.name}: expected 0 < number < 1e9, got {value}")


def _interval(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not (LEAST_INTERVAL <= value <= MOST_INTERVAL and value == int(value)):
        raise ConfigurationError(
            f"{attribute.name}: expected whole seconds from {LEAST_INTERVAL:g} (an hour) to "
            f"{MOST_INTERVAL:g} (ten years), got {value}"
        )


def _inbox_window(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not LEAST_INBOX_WINDOW <= value < 1e9:
        raise ConfigurationError(
            f"{attribute.name}: expected {LEAST_INBOX_WINDOW:g} <= seconds < 1e9, got {value}: "
            "it has to be longer than any redelivery takes"
        )


@attrs.frozen(slots=True, kw_only=True)
class Settings:
    """Everything `connect` needs. Durations are seconds; passwords never show in `repr`.

    `pooler_url` is PgBouncer in front of the same database. `redis_url` and `broker_url` may be
    None: then nothing is cached, or nothing can be relayed and consumed. `connect_timeout` is how
    long a call looks for a connection to the database, `statement_timeout` how long it waits for
    one answer. Every `cache_audit_every` seconds (None: never) a hundred cached values are compared
    with the database. For `cache_keep_last` seconds (None: not at all) a message and a window are
    remembered after they were cached, for reads that allow them to be stale. For `inbox_window`
    seconds, an hour at least, a queue knows what it has dealt with. A partition of messages, or a
    chunk of TimescaleDB's, holds `partition_interval` seconds; without `timescaledb`, the first
    migration makes no hypertable though it could. Maintenance has messages go that were sent more
    than `message_window` seconds ago (None: none), and compresses those of a hypertable that were
    sent more than `compress_window` seconds ago (None: none). `database_schema`, `redis_prefix` and
    `exchange` keep systems apart that share servers. `unknown_channels` says
    whether saving a message of a channel that is not registered registers it, or is refused.
    Raises `ConfigurationError` naming the setting.
    """

    database_url: str = attrs.field(
        validator=_url(*_DATABASE_SCHEMES),
        repr=_masked,
    )
    pooler_url: str | None = attrs.field(
        default=None,
        validator=_url(*_DATABASE_SCHEMES),
        repr=_masked,
    )
    redis_url: str | None = attrs.field(
        default=None,
        validator=_url(*_REDIS_SCHEMES),
        repr=_masked,
    )
    broker_url: str | None = attrs.field(
        default=None,
        validator=_url(*_BROKER_SCHEMES),
        repr=_masked,
    )
    database_schema: str = attrs.field(default="telegram_gateway", validator=_identifier)
    redis_prefix: str = "telegram"
    exchange: str = attrs.field(default="telegram.messages", validator=_exchange)
    message_ttl: float = attrs.field(default=3600.0, validator=_positive)
    seen_ttl: float = attrs.field(default=7200.0, validator=_positive)
    window_size: int = attrs.field(default=100, validator=_positive)
    cache_audit_every: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(_positive)
    )
    cache_keep_last: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(_positive)
    )
    inbox_window: float = attrs.field(default=7 * 86_400.0, validator=_inbox_window)
    unknown_channels: UnknownChannels = attrs.field(
        default=UnknownChannels.REGISTER, converter=_unknown_channels
    )
    partition_interval: float = attrs.field(default=7 * 86_400.0, validator=_interval)
    timescaledb: bool = True
    message_window: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(_positive)
    )
    compress_window: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(_positive)
    )
    pool_size: int = attrs.field(default=10, validator=_positive)
    connect_timeout: float = attrs.field(default=5.0, validator=_positive)
    statement_timeout: float = attrs.field(default=60.0, validator=_positive)

    @classmethod
    def from_url(
        cls, database: str, redis: str | None = None, broker: str | None = None
    ) -> Settings:
        """Settings from one URL for each server."""
        return cls(database_url=database, redis_url=redis, broker_url=broker)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Settings from TELEGRAM_* variables (`os.environ` unless given).

        One URL each (TELEGRAM_DATABASE_URL, TELEGRAM_PGBOUNCER_URL, TELEGRAM_REDIS_URL,
        TELEGRAM_BROKER_URL), or the parts: TELEGRAM_DB_HOST/PORT/NAME/USER/PASSWORD,
        TELEGRAM_PGBOUNCER_HOST/PORT (the rest is as for the database),
        TELEGRAM_REDIS_HOST/PORT/PASSWORD, TELEGRAM_RABBITMQ_HOST/PORT/USER/PASSWORD/VHOST. The
        database is required.

        With TELEGRAM_REDIS_SENTINELS (host:port,...) the master of TELEGRAM_REDIS_MASTER_NAME
        (default telegram-redis) is used, and TELEGRAM_REDIS_HOST only when no sentinel answers.
        For the sentinels themselves: TELEGRAM_REDIS_SENTINEL_USER/PASSWORD/TLS/CA;
        TELEGRAM_REDIS_ADDRESS_MAP (announced:port=reachable:port,...) translates what servers say
        of each other. TELEGRAM_REDIS_TLS/CA is for the data's servers, with and without sentinels.

        The names of what is ours: TELEGRAM_DB_SCHEMA, TELEGRAM_REDIS_PREFIX and
        TELEGRAM_RABBITMQ_EXCHANGE; lives of cached values in seconds:
        TELEGRAM_REDIS_MESSAGE_TTL and TELEGRAM_REDIS_SEEN_TTL.
        TELEGRAM_CACHE_AUDIT_EVERY and TELEGRAM_CACHE_KEEP_LAST (seconds) are `cache_audit_every`
        and `cache_keep_last`, TELEGRAM_INBOX_WINDOW (seconds) is `inbox_window`.
        TELEGRAM_UNKNOWN_CHANNELS (register or refuse) is `unknown_channels`.
        TELEGRAM_DB_PARTITION_INTERVAL (seconds) is `partition_interval`, and
        TELEGRAM_DB_TIMESCALEDB=false leaves TimescaleDB alone. TELEGRAM_MESSAGE_WINDOW (seconds)
        is `message_window`, TELEGRAM_COMPRESS_WINDOW (seconds) `compress_window`.
        """
        env = os.environ if environ is None else environ
        database = env.get("TELEGRAM_DATABASE_URL") or _from_parts(
            env, "postgresql", "TELEGRAM_DB", 5434, path=env.get("TELEGRAM_DB_NAME", "telegram")
        )
        if database is None:
            raise ConfigurationError(
                "no database: set TELEGRAM_DATABASE_URL or TELEGRAM_DB_HOST, "
                "or use telegram_hybrid.embedded() to try things without servers"
            )
        return cls(
            database_url=database,
            pooler_url=env.get("TELEGRAM_PGBOUNCER_URL") or _pooler(env, database),
            redis_url=env.get("TELEGRAM_REDIS_URL") or _from_sentinels(env) or _from_one_redis(env),
            broker_url=env.get("TELEGRAM_BROKER_URL")
            or _from_parts(
                env,
                "amqp",
                "TELEGRAM_RABBITMQ",
                5672,
                path=quote(env.get("TELEGRAM_RABBITMQ_VHOST", "/"), safe=""),
            ),
            **_ours(env),
        )


def _truth(text: str) -> bool:
    if text.lower() not in (*_NO, *_YES):
        raise ValueError(text)
    return text.lower() in _YES


#: What is ours on the servers, by the variables that name it, and how each is read.
_OURS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "TELEGRAM_DB_SCHEMA": ("database_schema", str),
    "TELEGRAM_REDIS_PREFIX": ("redis_prefix", str),
    "TELEGRAM_RABBITMQ_EXCHANGE": ("exchange", str),
    "TELEGRAM_REDIS_MESSAGE_TTL": ("message_ttl", float),
    "TELEGRAM_REDIS_SEEN_TTL": ("seen_ttl", float),
    "TELEGRAM_INBOX_WINDOW": ("inbox_window", float),
    "TELEGRAM_DB_PARTITION_INTERVAL": ("partition_interval", float),
    "TELEGRAM_DB_TIMESCALEDB": ("timescaledb", _truth),
    "TELEGRAM_MESSAGE_WINDOW": ("message_window", float),
    "TELEGRAM_COMPRESS_WINDOW": ("compress_window", float),
    "TELEGRAM_CACHE_KEEP_LAST": ("cache_keep_last", float),
    "TELEGRAM_CACHE_AUDIT_EVERY": ("cache_audit_every", float),
    "TELEGRAM_UNKNOWN_CHANNELS": ("unknown_channels", str),
}


def _ours(env: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, (field, read) in _OURS.items():
        if text := env.get(variable):
            try:
                found[field] = read(text)
            except ValueError:
                kind = "true or false" if read is _truth else "a number"
                raise ConfigurationError(f"{variable}: {text!r} is not {kind}") from None
    return found


def _from_one_redis(env: Mapping[str, str]) -> str | None:
    tls = _tls(env, "TELEGRAM_REDIS")
    url = _from_parts(env, "rediss" if tls else "redis", "TELEGRAM_REDIS", 6379, path="0")
    authority = env.get("TELEGRAM_REDIS_CA") if tls else None
    return f"{url}?{urlencode({'ssl_ca_certs': authority})}" if url and authority else url


def _tls(env: Mapping[str, str], prefix: str) -> bool:
    """Whether `prefix`_TLS asks for TLS; what is not understood must not mean no."""
    text = env.get(f"{prefix}_TLS", "")
    if text.lower() not in ("", *_NO, *_YES):
        raise ConfigurationError(f"{prefix}_TLS: {text!r} is neither true nor false")
    if env.get(f"{prefix}_CA") and text.lower() not in _YES:
        raise ConfigurationError(f"{prefix}_CA is there, but no TLS: set {prefix}_TLS=true")
    return text.lower() in _YES


def _from_sentinels(env: Mapping[str, str]) -> str | None:
    sentinels = env.get("TELEGRAM_REDIS_SENTINELS")
    if not sentinels:
        return None
    direct = _from_parts(env, "redis", "TELEGRAM_REDIS", 6379, path="0")
    options = {
        "direct": urlsplit(direct).netloc.rpartition("@")[2] if direct else None,
        "sentinel_username": env.get("TELEGRAM_REDIS_SENTINEL_USER"),
        "sentinel_password": env.get("TELEGRAM_REDIS_SENTINEL_PASSWORD"),
        "tls": "true" if _tls(env, "TELEGRAM_REDIS") else None,
        "ssl_ca_certs": env.get("TELEGRAM_REDIS_CA"),
        "sentinel_tls": "true" if _tls(env, "TELEGRAM_REDIS_SENTINEL") else None,
        "sentinel_ssl_ca_certs": env.get("TELEGRAM_REDIS_SENTINEL_CA"),
        "map": env.get("TELEGRAM_REDIS_ADDRESS_MAP"),
    }
    query = urlencode({name: value for name, value in options.items() if value})
    name = quote(env.get("TELEGRAM_REDIS_MASTER_NAME", "telegram-redis"), safe="")
    hosts = sentinels.replace(" ", "")
    address = f"{_credentials(env, 'TELEGRAM_REDIS')}{hosts}/{name}/0"
    return f"redis+sentinel://{address}{'?' if query else ''}{query}"


def _credentials(env: Mapping[str, str], prefix: str) -> str:
    user, password = env.get(f"{prefix}_USER", ""), env.get(f"{prefix}_PASSWORD", "")
    found = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    return f"{found}@" if found else ""


def _from_parts(
    env: Mapping[str, str], scheme: str, prefix: str, port: int, *, path: str
) -> str | None:
    host = env.get(f"{prefix}_HOST")
    if not host:
        return None
    place = _host_and_port(env, prefix, host, port)
    return f"{scheme}://{_credentials(env, prefix)}{place}/{path}"


def _pooler(env: Mapping[str, str], database: str) -> str | None:
    """Return the database's URL with the pooler's host and port in it."""
    host = env.get("TELEGRAM_PGBOUNCER_HOST")
    if not host or _problem(database) is not None:
        return None
    parts = urlsplit(database)
    credentials, at, _ = parts.netloc.rpartition("@")
    place = _host_and_port(env, "TELEGRAM_PGBOUNCER", host, 6434)
    query = "&".join(
        each
        for each in parts.query.split("&")
        if each.partition("=")[0] not in ("host", "hostaddr", "port")
    )
    return parts._replace(netloc=f"{credentials}{at}{place}", query=query).geturl()


def _host_and_port(env: Mapping[str, str], prefix: str, host: str, port: int) -> str:
    number = env.get(f"{prefix}_PORT", str(port))
    if not (number.isdecimal() and 0 < int(number) < 65536):
        raise ConfigurationError(f"{prefix}_PORT: {number!r} is not a port number")
    return f"{f'[{host}]' if ':' in host else host}:{number}"
