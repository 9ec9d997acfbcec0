"""RabbitMQ boots from the written files, imports the definitions, and keeps its users apart."""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import amqp
import pytest
from servers.rabbitmq import RabbitMQ
from servers.stack import NativeStack, read_env
from stand import until

from telegram_hybrid.connect.broker import close_quietly, open_broker
from telegram_hybrid.delivery.topology import declare_exchanges, declare_queue
from telegram_hybrid.errors import BrokerError
from telegram_hybrid.schema.broker import Topology

pytestmark = pytest.mark.integration
TOPOLOGY = Topology()


@pytest.fixture
def connection(rabbitmq: RabbitMQ) -> Iterator[Any]:
    """A connection of the application's user, as its settings say."""
    opened = open_broker(rabbitmq.url)
    yield opened
    close_quietly(opened)


def ask(stack: NativeStack, path: str, user: str = "telegram_admin") -> Any:
    secrets = read_env(stack.folder / "secrets.env")
    name = "BROKER_ADMIN_PASSWORD" if user == "telegram_admin" else "BROKER_PASSWORD"
    token = base64.b64encode(f"{user}:{secrets[name]}".encode()).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{stack.ports['management']}/api/{path}",
        headers={"Authorization": f"Basic {token}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_the_definitions_are_what_the_library_would_declare(
    stack: NativeStack, connection: Any
) -> None:
    """By the administrator, who may make them, and by the application, which may not.

    Seen to fail with the dead-letter queue as a classic one: TopologyConflict.
    """
    secret = read_env(stack.folder / "secrets.env")["BROKER_ADMIN_PASSWORD"]
    place = f"127.0.0.1:{stack.ports['rabbitmq']}/telegram"
    administrator = open_broker(f"amqp://telegram_admin:{secret}@{place}")
    for each in (administrator, connection):
        with each.channel() as channel:
            declare_exchanges(each, channel, TOPOLOGY)
            assert channel.is_open  # a conflict would have closed it
    close_quietly(administrator)


def test_the_application_publishes_consumes_and_dead_letters(connection: Any) -> None:
    key = "telegram.channel.-1001649127710"
    with connection.channel() as channel:
        declare_queue(connection, channel, TOPOLOGY, "telegram.events", ["telegram.channel.#"])
        producer = connection.Producer(channel)
        producer.publish("news", exchange=TOPOLOGY.exchange, routing_key=key, mandatory=True)
        message = taken(channel, "telegram.events")
        channel.basic_reject(message.delivery_tag, requeue=False)
        assert taken(channel, TOPOLOGY.dead_letter_queue).body == message.body


def taken(channel: Any, queue: str) -> Any:
    """The next message of a queue, waited for."""
    found: list[Any] = []

    def look() -> bool:
        found.extend(filter(None, [channel.basic_get(queue)]))
        return bool(found)

    until(look)
    return found[0]


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda channel: channel.queue_declare("elsewhere"),
        lambda channel: channel.exchange_declare("elsewhere", "topic"),
        lambda channel: channel.queue_declare("xtelegram.events"),
        lambda channel: channel.queue_bind("telegram.events", "amq.topic", routing_key="#"),
        lambda channel: channel.queue_delete("elsewhere"),
        lambda channel: channel.exchange_delete(TOPOLOGY.exchange),
        lambda channel: channel.exchange_delete(TOPOLOGY.dead_letter_exchange),
        lambda channel: channel.queue_delete(TOPOLOGY.dead_letter_queue),
        lambda channel: publish(channel, "amq.topic", "telegram.channel.1"),
        lambda channel: publish(channel, "", "telegram.events"),
        lambda channel: publish(channel, TOPOLOGY.exchange, "elsewhere"),
    ],
)
def test_the_application_can_touch_nothing_else(connection: Any, forbidden: Any) -> None:
    # Seen to fail with ".*" for each permission, and without the topic permission. Deleting what
    # stands from the start was possible while the user might configure whatever is "telegram.".
    with pytest.raises(amqp.exceptions.AccessRefused):
        forbidden(connection.channel())


def publish(channel: Any, exchange: str, routing_key: str) -> None:
    """Publish and wait for the confirm; a refusal closes the channel instead."""
    channel.confirm_select()
    message = channel.prepare_message(b"news")
    channel.basic_publish(message, exchange=exchange, routing_key=routing_key)
    channel.connection.drain_events(timeout=10)


def test_guest_and_other_virtual_hosts_are_closed(stack: NativeStack, rabbitmq: RabbitMQ) -> None:
    for url in (
        f"amqp://guest:guest@127.0.0.1:{rabbitmq.port}/telegram",
        rabbitmq.url.removesuffix("telegram") + "%2F",
    ):
        with pytest.raises(BrokerError) as refused:
            open_broker(url)
        assert stack.env["TELEGRAM_RABBITMQ_PASSWORD"] not in str(refused.value)


def test_management_is_for_the_administrator_alone(stack: NativeStack, rabbitmq: RabbitMQ) -> None:
    until(lambda: ask(stack, "overview")["node"])
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(stack, "overview", user="telegram")


def test_the_policies_hold_for_their_queues(stack: NativeStack, connection: Any) -> None:
    with connection.channel() as channel:
        declare_queue(connection, channel, TOPOLOGY, "telegram.held", ["telegram.channel.#"])
    until(lambda: queue(stack, "telegram.held").get("policy") == "telegram-queues")
    held = queue(stack, "telegram.held")["effective_policy_definition"]
    assert held["dead-letter-strategy"] == "at-least-once"
    dead = queue(stack, TOPOLOGY.dead_letter_queue)
    assert (dead["type"], dead["policy"]) == ("quorum", "telegram-dead-letters")


def queue(stack: NativeStack, name: str) -> Any:
    return ask(stack, f"queues/telegram/{name}")


def test_what_quorum_queues_hold_in_memory_stays_below_its_mark(rabbitmq: RabbitMQ) -> None:
    """Three logs at a time, as RabbitMQ's manual reckons: one filled, two being written out.

    Seen to fail with the log's own size of 512 MB; a backlog of 350,000 events of 1 KB then took
    the memory to its mark, and every publisher stood still for seconds, again and again.
    """
    log = int(rabbitmq.control("eval", "element(2, application:get_env(ra, wal_max_size_bytes))."))
    mark = int(rabbitmq.control("eval", "vm_memory_monitor:get_memory_limit()."))
    assert 3 * log < mark
