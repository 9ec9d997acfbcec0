"""Broker addresses: understood, or refused before any connection, and not repeated (P12)."""

import traceback

import pytest

from telegram_hybrid.connect.broker import open_broker
from telegram_hybrid.errors import ConfigurationError


@pytest.mark.parametrize(
    "url",
    [
        "kafka://ann:hush@x",
        "hush",
        "amqp://ann:hush",
        "amqp://ann:hush@host:port/",
        "redis://:hush@127.0.0.1:99999/0",
        "redis://:hush@127.0.0.1:1/first",
        "redis+socket://ann:hush",
        "redis+socket:///nowhere?colour=hush",
    ],
)
def test_an_address_that_is_none_is_refused_as_configuration(url):
    # Broken on purpose: with the parser's error chained, the traceback quotes it as a port.
    with pytest.raises(ConfigurationError, match="TELEGRAM_BROKER_URL") as caught:
        open_broker(url)
    assert "hush" not in "".join(traceback.format_exception(caught.value))
