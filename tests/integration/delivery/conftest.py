"""Stands on each broker."""

from collections.abc import Iterator

import pytest
from stand import Stand, stand

from telegram_hybrid.settings import Settings


@pytest.fixture(params=["redis", "rabbitmq"])
def at(request: pytest.FixtureRequest, telegram_settings: Settings) -> Iterator[Stand]:
    """A stand on each transport in turn."""
    url = request.getfixturevalue("rabbitmq").url if request.param == "rabbitmq" else None
    with stand(telegram_settings, url) as ready:
        yield ready


@pytest.fixture
def redis_at(telegram_settings: Settings) -> Iterator[Stand]:
    """A stand on the embedded broker."""
    with stand(telegram_settings) as ready:
        yield ready


@pytest.fixture
def rabbit_at(telegram_settings: Settings, rabbitmq) -> Iterator[Stand]:
    """A stand on RabbitMQ."""
    with stand(telegram_settings, rabbitmq.url) as ready:
        yield ready
