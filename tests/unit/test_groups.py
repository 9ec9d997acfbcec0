"""Tests that share servers are a group of xdist's, and one worker runs them."""

import pytest


@pytest.mark.xdist_group("one")
def test_a_group_is_what_the_scheduler_sees(request: pytest.FixtureRequest) -> None:
    # Seen to fail with pytest 9.2 and pytest-xdist 3.8, which send such tests to all workers: their
    # servers are started by each.
    told = request.config.getoption("loadgroup", default=False)
    assert request.node.nodeid.endswith("@one") == told
