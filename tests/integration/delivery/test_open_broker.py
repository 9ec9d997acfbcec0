"""Opening the broker: what is not there is named, and never with its secret (P12)."""

import pytest
from servers.rabbitmq import RabbitMQ

from telegram_hybrid.connect.broker import close_quietly, open_broker
from telegram_hybrid.errors import BrokerError, BrokerUnavailable

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("amqp://ann:hunter2@127.0.0.1:1/", "broker at 127.0.0.1:1"),
        ("redis://:hunter2@127.0.0.1:1/0", "broker at 127.0.0.1:1"),
        ("redis+socket://:hunter2@/nowhere/at.all?virtual_host=0", "broker at /nowhere/at.all"),
    ],
)
def test_a_broker_that_is_not_there_is_named_without_its_password(url, named):
    # Broken on purpose: naming `connection.as_uri(include_password=True)` fails here (P12).
    with pytest.raises(BrokerUnavailable) as caught:
        open_broker(url)
    assert named in str(caught.value)
    text = "".join(map(str, (caught.value, caught.value.__cause__, repr(caught.value))))
    assert "hunter2" not in text


def test_a_wrong_password_is_an_error_that_trying_again_does_not_cure(rabbitmq: RabbitMQ):
    url = rabbitmq.url.replace("telegram:", "telegram:hunter2")
    with pytest.raises(BrokerError, match="check user, password") as caught:
        open_broker(url)
    assert not isinstance(caught.value, BrokerUnavailable)
    assert "hunter2" not in str(caught.value)


def test_closing_after_the_server_is_gone_is_quiet(rabbitmq: RabbitMQ):
    connection = open_broker(rabbitmq.url)
    rabbitmq.kill()
    close_quietly(connection)
    with pytest.raises(BrokerUnavailable, match="broker at"):
        open_broker(rabbitmq.url)
