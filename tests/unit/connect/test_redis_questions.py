"""One line to a server: a question at a time, and what is left when it is closed."""

from threading import Event

from telegram_hybrid.connect.redis.questions import _Line


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
