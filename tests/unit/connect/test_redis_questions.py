"""One line to a server: a question at a time, and what is left when it is closed."""

import socket
from threading import Event, Thread

import pytest

from telegram_hybrid.connect.redis.discovery import Address
from telegram_hybrid.connect.redis.questions import Questions, _Line
from telegram_hybrid.connect.redis.url import parse


class Connection:
    def __init__(self) -> None:
        self.disconnected = Event()

    def disconnect(self) -> None:
        self.disconnected.set()


def test_who_asks_while_a_question_is_under_way_shares_its_answer() -> None:
    line, go = _Line(Connection()), Event()
    first = line.ask(lambda _: go.wait(5))
    assert line.ask(lambda _: "another") is first
    go.set()
    assert first.result(5) is True
    assert line.ask(lambda _: "another").result(5) == "another"


def test_a_line_closed_during_a_question_hangs_up_after_it() -> None:
    # Seen to fail while closing left such a connection open for as long as the client lived.
    connection, go = Connection(), Event()
    line = _Line(connection)
    answer = line.ask(lambda _: go.wait(5))
    line.close()
    assert not connection.disconnected.is_set()
    go.set()
    assert answer.result(5) is True
    assert connection.disconnected.wait(5)
    connection.disconnected.clear()
    line.ask(lambda _: None).result(5)
    assert not connection.disconnected.is_set()  # it is in use again


def test_where_no_thread_can_be_started_whoever_asks_waits_for_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Seen to fail: every read and every commit raised RuntimeError, though Redis was well.
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", refuse)
    line = _Line(Connection())
    assert line.ask(lambda _: "an answer").result(0) == "an answer"
    assert line.ask(lambda _: "another").result(0) == "another"


def test_a_resolver_that_takes_its_time_is_named_with_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Seen to fail: of a node it said that it "does not answer in time", and no setting.
    go = Event()

    def resolve(*_: object, **__: object) -> list[object]:
        go.wait(10)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    questions = Questions(parse("redis+sentinel://s.invalid/m/0"), timeout=0.01, patience=0.01)
    node = questions.role(Address("node.invalid", 6379))
    (sentinel,) = questions.sentinels()
    go.set()
    assert "name cannot be resolved" in str(node)
    assert "_ADDRESS_MAP" in str(node)
    assert "name cannot be resolved" in str(sentinel)
    assert "TELEGRAM_REDIS_SENTINELS" in str(sentinel)
