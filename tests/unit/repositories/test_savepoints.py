"""Savepoints are followed as PostgreSQL follows them, in whatever spelling they are asked for."""

from __future__ import annotations

import pytest

from telegram_hybrid.repositories.savepoints import Savepoints, ends_transaction


def run(*said: str | int) -> list[int]:
    """Return what is known at the end: the numbers, without those that were rolled back."""
    known: list[int] = []

    def again(count: int) -> None:
        del known[count:]

    savepoints = Savepoints(lambda: len(known), again)
    for each in said:
        if isinstance(each, int):
            known.append(each)
        else:
            savepoints.hear(each)
            savepoints.heard(each)
    return known


@pytest.mark.parametrize(
    "back",
    [
        "ROLLBACK TO SAVEPOINT a",
        "rollback to a",
        "  Rollback\n Work To A;",
        "ROLLBACK TRANSACTION TO SAVEPOINT a -- the first",
        'ROLLBACK TO "a"',
        "/* told */ -- by\n/* somebody */ ROLLBACK TO a",
    ],
)
def test_a_rollback_takes_back_what_came_behind_its_savepoint(back: str) -> None:
    # Broken on purpose: without folding the name, `A` was a savepoint that nobody had set.
    assert run(1, "SAVEPOINT a", 2, "SAVEPOINT b", 3, back) == [1]


def test_a_savepoint_may_be_returned_to_more_than_once() -> None:
    # Broken on purpose: dropped with those behind it, it was unknown the second time.
    assert run("SAVEPOINT a", 1, "ROLLBACK TO a", 2, "ROLLBACK TO a", 3) == [3]


def test_a_name_that_is_set_twice_hides_the_earlier_until_released() -> None:
    # Broken on purpose: with a dictionary, the first `a` was forgotten.
    twice = (1, "SAVEPOINT a", 2, "SAVEPOINT a", 3)
    assert run(*twice, "ROLLBACK TO a") == [1, 2]
    assert run(*twice, "RELEASE SAVEPOINT a", "ROLLBACK TO a") == [1]


def test_names_in_quotes_are_taken_as_they_are() -> None:
    assert run('SAVEPOINT "A ""b"', 1, "SAVEPOINT a", 2, 'ROLLBACK TO "A ""b"') == []
    assert run('SAVEPOINT "A"', 1, "SAVEPOINT a", 2, "ROLLBACK TO A") == [1]
    assert run("SAVEPOINT savepoint", 1, "ROLLBACK TO savepoint") == []


@pytest.mark.parametrize(
    "other",
    ["SELECT 'ROLLBACK TO a'", "ROLLBACK", "ROLLBACK TO b", "RELEASE b", "SAVEPOINTS a", ""],
)
def test_other_statements_change_nothing(other: str) -> None:
    assert run("SAVEPOINT a", 1, other) == [1]
    assert run("SAVEPOINT a", 1, other, "ROLLBACK TO a") == []


@pytest.mark.parametrize("refused", ["SAVEPOINT a", "RELEASE a"])
def test_what_was_refused_is_neither_set_nor_released(refused: str) -> None:
    # Broken on purpose: followed before it has run, each of them leaves [1, 2].
    known = [1]
    savepoints = Savepoints(lambda: len(known), lambda count: known.__delitem__(slice(count, None)))
    savepoints.hear("SAVEPOINT a")
    savepoints.heard("SAVEPOINT a")
    known.append(2)
    savepoints.hear(refused)
    savepoints.hear("ROLLBACK TO a")
    assert known == [1]


@pytest.mark.parametrize(
    "statement",
    ["COMMIT", " end;", "ROLLBACK", "rollback work", "/* so */ ABORT", "Rollback And Chain"],
)
def test_the_end_of_a_transaction_is_told_from_that_of_a_savepoint(statement: str) -> None:
    assert ends_transaction(statement)


@pytest.mark.parametrize(
    "statement",
    ["ROLLBACK TO a", "ROLLBACK WORK TO SAVEPOINT a", "RELEASE a", "SELECT 'COMMIT'", "ENDED", ""],
)
def test_what_ends_no_transaction_is_let_pass(statement: str) -> None:
    assert not ends_transaction(statement)


def test_a_statement_behind_many_comments_is_followed_at_once() -> None:
    # Broken on purpose: with a plain group, each more of them takes twice the time, or longer.
    assert run("SAVEPOINT a", 1, "/* so */ " * 50 + "SELECT 1") == [1]
