"""Broker addresses: understood, or refused before any connection."""

import pytest

from telegram_hybrid.connect.broker import open_broker
from telegram_hybrid.errors import ConfigurationError


@pytest.mark.parametrize("url", ["kafka://x", "nonsense", "amqp://host:port/", "redis://h:99999/0"])
def test_an_address_that_is_none_is_refused_as_configuration(url):
    with pytest.raises(ConfigurationError, match="TELEGRAM_BROKER_URL"):
        open_broker(url)
