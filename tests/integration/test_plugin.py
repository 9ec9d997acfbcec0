"""The pytest plugin as another project uses it: one line, real servers, nothing left between."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.integration

SUITE = """
import pytest
from telegram_hybrid.testing import make_message

@pytest.mark.parametrize("turn", range(4))
def test_every_test_begins_with_an_empty_store(hybrid, turn):
    message = make_message(message_id=7, text=f"turn {turn}")
    assert hybrid.messages.get(*message.key) is None
    assert hybrid.messages.save(message).outcome == "inserted"
    assert hybrid.messages.get(*message.key).text == f"turn {turn}"
"""


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["alone", "with xdist"])
def test_another_projects_suite_gets_a_hybrid(
    pytester: pytest.Pytester, options: list[str]
) -> None:
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("-q", *options)
    result.assert_outcomes(passed=4)


def test_a_suite_that_asks_for_nothing_starts_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing_was_imported():
            assert "sqlalchemy" not in sys.modules
            assert "telegram_hybrid.embedded" not in sys.modules
        """
    )
    pytester.runpytest_subprocess("-q").assert_outcomes(passed=1)
