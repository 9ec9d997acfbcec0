"""Routes: when the pooler serves, when the direct way does, and who looks for a lost pooler."""

import pytest

from telegram_hybrid.connect.postgres.routes import (
    DOUBT_AFTER,
    HEARD_WITHIN,
    PROBE_EVERY,
    Route,
    Routes,
)

BOTH = (Route.POOLER, Route.DIRECT)


def lost() -> Routes:
    routes = Routes(pooler=True)
    routes.failed(Route.POOLER, "refused")
    return routes


def test_without_a_pooler_there_is_one_way_and_nobody_looks_for_another():
    routes = Routes(pooler=False)
    assert routes.order() == (Route.DIRECT,)
    routes.failed(Route.DIRECT, "refused")
    assert routes.serving is Route.DIRECT
    assert routes.trouble is None
    assert not routes.claim_search()


def test_the_pooler_serves_first_and_the_direct_way_is_the_second():
    assert Routes(pooler=True).order() == BOTH


def test_a_pooler_that_failed_is_tried_last_until_it_answers():
    routes = lost()
    assert routes.order() == BOTH[::-1]
    assert routes.trouble == "refused"
    routes.answered(Route.DIRECT)
    assert routes.serving is Route.DIRECT
    routes.answered(Route.POOLER)
    assert routes.order() == BOTH
    assert routes.trouble is None


def test_a_failure_of_the_direct_way_says_nothing_about_the_pooler():
    routes = Routes(pooler=True)
    routes.failed(Route.DIRECT, "too many clients")
    assert routes.serving is Route.POOLER


def test_one_at_a_time_looks_for_a_lost_pooler():
    # Broken on purpose: without _searching every checkout starts a thread of its own.
    routes = lost()
    assert routes.claim_search()
    routes.failed(Route.POOLER, "refused")
    assert not routes.claim_search()
    routes.search_ended()
    assert routes.claim_search()


def test_nobody_looks_for_a_pooler_that_serves():
    assert not Routes(pooler=True).claim_search()


def test_who_waits_for_a_pooler_that_others_have_left_doubts_it_too():
    # Seen to fail while only one that serves was doubted: it was waited for without end.
    routes = lost()
    epoch = routes.epoch
    assert routes.claim_doubt(100.0)
    routes.silent("no login within 3 s")
    assert routes.is_lost(epoch)


@pytest.mark.parametrize(("route", "goes_on"), [(Route.POOLER, False), (Route.DIRECT, True)])
def test_while_the_direct_way_serves_connections_of_the_pooler_are_given_up(route, goes_on):
    routes = lost()
    assert routes.carries(route, routes.epoch) is goes_on


def test_a_pooler_that_returned_gets_the_connections_back():
    routes = lost()
    routes.answered(Route.POOLER)
    assert routes.carries(Route.POOLER, routes.epoch)
    assert not routes.carries(Route.DIRECT, routes.epoch)


def test_what_a_silent_pooler_carried_is_lost_also_after_its_return():
    routes = Routes(pooler=True)
    epoch = routes.epoch
    assert routes.claim_doubt(50.0)
    routes.silent("no login within 2 s")
    assert routes.serving is Route.DIRECT
    assert routes.is_lost(epoch)
    routes.answered(Route.POOLER)
    assert not routes.carries(Route.POOLER, epoch)
    assert not routes.is_lost(routes.epoch)


def test_a_slow_statement_through_a_pooler_that_lives_loses_nothing():
    routes = Routes(pooler=True)
    epoch = routes.epoch
    assert routes.claim_doubt(50.0)
    assert not routes.claim_doubt(51.0)
    routes.alive(51.0)
    assert routes.serving is Route.POOLER
    assert not routes.is_lost(epoch)
    assert not routes.claim_doubt(51.0 + PROBE_EVERY / 2)


def test_a_pooler_that_answers_others_is_busy_and_not_doubted():
    # Seen without it: 200 clients at once fled to the server and took the pooler's places there.
    routes = Routes(pooler=True)
    routes.heard(50.0)
    assert routes.is_busy(50.0 + HEARD_WITHIN / 2)
    assert not routes.claim_doubt(50.0 + DOUBT_AFTER / 2)
    assert not routes.is_busy(50.0 + HEARD_WITHIN)
    assert routes.claim_doubt(50.0 + DOUBT_AFTER)
