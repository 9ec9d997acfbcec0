"""open_redis: a client without I/O, or an error without the secret."""

import traceback

import pytest
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from telegram_hybrid.connect.redis import TIMEOUT, open_redis, open_replica
from telegram_hybrid.connect.redis.discovery import Address
from telegram_hybrid.connect.redis.url import parse
from telegram_hybrid.errors import ConfigurationError


def options(url: str, **more: object) -> dict:
    return open_redis(url, **more).connection_pool.connection_kwargs


def test_a_client_fails_fast_and_speaks_bytes() -> None:
    found = options("redis://user:secret@example.org:6380/2?decode_responses=true")
    assert (found["host"], found["port"], found["db"]) == ("example.org", 6380, 2)
    assert (found["username"], found["password"]) == ("user", "secret")
    assert found["socket_timeout"] == found["socket_connect_timeout"] == TIMEOUT
    assert found["decode_responses"] is False
    assert found["retry"].get_retries() == 0
    assert found["client_name"] == "telegram_hybrid"


def test_tls_and_sockets_are_known() -> None:
    assert open_redis("rediss://example.org").connection_pool.connection_class is SSLConnection
    pool = open_redis("unix:///run/redis.sock?db=3").connection_pool
    assert pool.connection_class is UnixDomainSocketConnection
    assert (pool.connection_kwargs["path"], pool.connection_kwargs["db"]) == ("/run/redis.sock", 3)


def test_the_url_may_set_another_timeout() -> None:
    url = "redis://example.org?socket_timeout=2"
    assert options(url, deadline=None)["socket_timeout"] == 2
    # But not to more than lets a second attempt end before the deadline.
    assert options(url, deadline=4.0)["socket_timeout"] == 1


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "must begin with"),
        ("hunter2", "must begin with"),
        ("http://:hunter2@example.org", "must begin with"),
        ("redis://user:hunter2", "malformed"),
        ("redis://:hunter2@[::1", "malformed"),
        ("redis://:hunter2@example.org:70000", "malformed"),
        ("redis://:hunter2@", "names no host"),
        ("redis://:hunter2@example.org/first", "not a number"),
        ("redis://:hunter2@example.org?db=hunter2", "option"),
        ("redis://:hunter2@example.org?colour=hunter2", "option"),
        ("redis://:hunter2@example.org?protocol=hunter2", "option"),
        ("unix://:hunter2@", "names no socket"),
    ],
)
def test_a_url_that_makes_no_client_is_refused_without_its_secret(url: str, problem: str) -> None:
    # P12. Seen to fail when the parser's error is chained: it quotes the password as a port.
    with pytest.raises(ConfigurationError, match=f"TELEGRAM_REDIS_URL .*{problem}") as raised:
        open_redis(url)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))
    assert raised.value.__context__ is None


def test_a_client_does_not_show_its_password() -> None:
    assert "secret" not in repr(open_redis("redis://user:secret@example.org"))


def test_a_sentinel_url_is_read_whole() -> None:
    target = parse(
        "redis+sentinel://user:p%40ss@h1,h2:26380,[::1]:26381/telegram-redis/2"
        "?direct=db&sentinel_username=watch&sentinel_password=guard&tls=true&ssl_ca_certs=/ca.pem"
        "&sentinel_tls=1&sentinel_ssl_ca_certs=/other.pem&map=10.0.0.2:6379=localhost:6380,a:1=b:2"
        "&socket_timeout=1"
    )
    assert target.sentinels == (
        Address("h1", 26379),
        Address("h2", 26380),
        Address("::1", 26381),
    )
    assert (target.master_name, target.direct) == ("telegram-redis", Address("db", 6379))
    assert target.connection_class is SSLConnection
    assert target.sentinel_class is SSLConnection
    assert target.options["ssl_ca_certs"] == "/ca.pem"
    assert target.sentinel_options["ssl_ca_certs"] == "/other.pem"
    assert (target.options["username"], target.options["password"]) == ("user", "p@ss")
    assert (target.options["db"], target.options["socket_timeout"]) == (2, 1)
    assert target.sentinel_options["username"] == "watch"
    assert target.sentinel_options["password"] == "guard"
    assert target.address_map == {
        Address("10.0.0.2", 6379): Address("localhost", 6380),
        Address("a", 1): Address("b", 2),
    }
    assert "p@ss" not in repr(target)
    assert "guard" not in repr(target)


def test_the_nodes_password_is_not_the_sentinels() -> None:
    target = parse("redis+sentinel://:hunter2@h1/telegram-redis/0")
    assert "password" not in target.sentinel_options
    assert target.sentinel_class is Connection


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis+sentinel://:hunter2@h1:26379", "names no master"),
        ("redis+sentinel://:hunter2@/telegram-redis", "names no host"),
        ("redis+sentinel://:hunter2@h1,,h2/telegram-redis", "names no host"),
        ("redis+sentinel://:hunter2@h1:hunter2/telegram-redis", "malformed host or port"),
        ("redis+sentinel://:hunter2@[::1/telegram-redis", "malformed"),
        ("redis+sentinel://:hunter2@h1/telegram-redis/first", "not a number"),
        ("redis+sentinel://h1/telegram-redis?password=hunter2", "password in its query"),
        ("redis+sentinel://:hunter2@h1/telegram-redis?direct=a:b", "direct"),
        ("redis+sentinel://:hunter2@h1/telegram-redis?direct=a:1,b:1", "more than one host"),
        ("redis+sentinel://:hunter2@h1/telegram-redis?map=hunter2", "map"),
        ("redis+sentinel://:hunter2@h1/telegram-redis?map=a:1=b=c:1", "map"),
        ("redis+sentinel://:hunter2@h1/telegram-redis?tls=hunter2", "tls"),
        ("redis+sentinel://:hunter2@h1/telegram-redis?colour=hunter2", "option"),
        ("redis+sentinel://:hunter2@h1/telegram-redis?sentinel_colour=hunter2", "option"),
    ],
)
def test_a_sentinel_url_that_makes_no_client_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=f"TELEGRAM_REDIS_URL .*{problem}") as raised:
        open_redis(url)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))
    assert raised.value.__context__ is None


def test_replicas_are_known_through_sentinels_only() -> None:
    with pytest.raises(ConfigurationError, match="names no sentinels"):
        open_replica("redis://example.org", max_lag=5.0)
