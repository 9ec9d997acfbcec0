"""What every test can use: the run's header, the skip policy, and the servers."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from servers.rabbitmq import RabbitMQ
from servers.versions import report
from skip_policy import pytest_sessionfinish, pytest_terminal_summary

__all__ = ["pytest_sessionfinish", "pytest_terminal_summary"]  # hooks, found here by pytest

# A busy machine makes examples slow; that says nothing about the property.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_report_header() -> list[str]:
    """The versions that a failure report needs."""
    return report()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep all users of the shared RabbitMQ on one xdist worker (with `--dist loadgroup`).

    A start costs several CPU seconds and 150 MB, so one server serves them all.
    """
    for item in items:
        if "rabbitmq" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("rabbitmq"))


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A running RabbitMQ, shared: name your own exchanges and queues, and never stop it.

    Tests that kill a server use `own_rabbitmq`.
    """
    _require_rabbitmq()
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture
def own_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A running RabbitMQ for one test alone, to kill, stop and start again."""
    _require_rabbitmq()
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


def _require_rabbitmq() -> None:
    if missing := RabbitMQ.available():
        pytest.skip(missing)
