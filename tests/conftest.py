"""What every test can use: the run's header, the skip policy, and the servers."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from servers.kinds import plain_postgres_url
from servers.rabbitmq import RabbitMQ
from servers.stack import NativeStack
from servers.versions import report
from skip_policy import pytest_sessionfinish, pytest_terminal_summary

# Hooks and a fixture, found here by pytest.
__all__ = ["plain_postgres_url", "pytest_sessionfinish", "pytest_terminal_summary"]

# A busy machine makes examples slow; that says nothing about the property.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


# Hundreds of tests start a Python; it need not compile the package every time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_report_header() -> list[str]:
    """The versions that a failure report needs."""
    return report()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A short name for what is long: workers send each other the names, some of five megabytes."""
    if isinstance(val, str | bytes) and len(val) > 100:
        return f"{argname} of {len(val)}"
    return None


@pytest.fixture(scope="session")
def stack() -> Iterator[NativeStack]:
    """The deployment, one for each xdist worker: `stack.start(...)` what the test needs.

    A test may kill and pause its servers, because the next one starts what it needs; name your
    own schema, key prefix, exchange and queues (which begin with "telegram.").
    """
    if missing := NativeStack.missing():
        pytest.skip(missing)
    with NativeStack() as servers:
        yield servers


@pytest.fixture
def own_stack() -> Iterator[NativeStack]:
    """A deployment for one test alone, not started: to change its files, or to begin anew."""
    if missing := NativeStack.missing():
        pytest.skip(missing)
    with NativeStack() as servers:
        yield servers


@pytest.fixture
def rabbitmq(stack: NativeStack) -> RabbitMQ:
    """The deployment's RabbitMQ, running."""
    stack.rabbitmq.resume()
    stack.start(stack.rabbitmq)
    return stack.rabbitmq
