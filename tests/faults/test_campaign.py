"""The fault campaign: whatever is killed, cut and refused, every promise about events holds.

Set TELEGRAM_HYBRID_FAULTS for another number of faults (the long profile: 2000), and
TELEGRAM_HYBRID_SEED for another order of them. The order is the same for a seed; how the
processes interleave under it is not, so a violation is shown by repeated runs of a seed.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest
from campaign.history import Kind, judge
from campaign.plan import plan
from campaign.running import CHANNELS, Campaign
from campaign.worker import message_of, note
from servers.stack import NativeStack

from telegram_hybrid import connect

FAULTS = int(os.environ.get("TELEGRAM_HYBRID_FAULTS", "110"))
SEED = int(os.environ.get("TELEGRAM_HYBRID_SEED", "5"))

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180 + FAULTS * 5)]


def test_a_planted_fault_of_each_kind_is_found_by_the_same_judge(
    own_stack: NativeStack, tmp_path: Path
):
    """On the same servers, tables and queues: so the judge sees what it is given to judge."""
    own_stack.start(own_stack.postgres, own_stack.rabbitmq)
    campaign = Campaign(own_stack, tmp_path, seed=SEED, rate=0.0)
    try:
        campaign.prepare()
        with connect(campaign.direct) as hybrid:
            for number in range(4):
                for channel in CHANNELS[:4]:
                    token = f"{channel}/{number}"
                    with hybrid.transaction() as tx:
                        tx.messages.save(message_of(channel, number, token))
                        if token != "-1003/1":
                            note(tx, channel, token)
        outbox = f"{campaign.direct.database_schema}.outbox"
        inbox = f"{campaign.direct.database_schema}.inbox"
        with own_stack.connect() as database:
            database.execute(f"CREATE TEMP TABLE kept AS SELECT * FROM {outbox}")
            named = "channel_id = %s AND payload->>'text' = %s"
            database.execute(f"DELETE FROM {outbox} WHERE {named}", [-1001, "-1001/1"])
            first, second = (
                database.execute(f"SELECT id FROM {outbox} WHERE {named}", [-1002, token])
                for token in ("-1002/1", "-1002/2")
            )
            (one,), (other,) = first.fetchone(), second.fetchone()
            for old, new in ((one, 10**9), (other, one), (10**9, other)):
                database.execute(f"UPDATE {outbox} SET id = %s WHERE id = %s", [new, old])
            campaign.run_quietly()
            database.execute(
                f"DELETE FROM {inbox} WHERE event_id IN (SELECT event_id FROM kept WHERE {named})",
                [-1004, "-1004/3"],
            )
            database.execute(
                f"INSERT INTO {outbox} SELECT * FROM kept WHERE {named}", [-1004, "-1004/3"]
            )
        campaign.run_quietly()
        violations = judge(campaign.history())
    finally:
        campaign.close()
    found = {(each.kind, each.token) for each in violations}
    print("\n".join(f"  {each}" for each in violations))
    assert found == {
        (Kind.UNPUBLISHED, "-1001/1"),
        (Kind.UNHANDLED, "-1001/1"),
        (Kind.INVERTED, "-1002/1"),
        (Kind.MISNUMBERED, "-1002/2"),
        (Kind.PHANTOM, "-1003/1"),
        (Kind.TWICE, "-1004/3"),
    }


def test_no_fault_loses_repeats_reorders_or_invents_an_event(
    own_stack: NativeStack, tmp_path: Path
):
    began = time.monotonic()
    own_stack.start(own_stack.postgres, own_stack.rabbitmq)
    campaign = Campaign(own_stack, tmp_path, seed=SEED, rate=60.0)
    try:
        campaign.begin()
        for step in plan(SEED, FAULTS):
            campaign.inject(step)
        left = campaign.settle()
        history = campaign.history()
    finally:
        campaign.close()
    violations = judge(history)
    print(
        f"\n{len(campaign.injected)} faults (seed {SEED}),"
        f" {len(history.committed):,} events committed, {len(history.published):,} published,"
        f" {len(history.handled):,} handled, {time.monotonic() - began:.0f} s"
    )
    print("\n".join(f"  {count:4} {fault}" for fault, count in Counter(campaign.injected).items()))
    kinds = Counter(each.kind for each in violations)
    logs = {each.log.name: each.log.read_text()[-2000:] for each in campaign.keepers}
    assert not violations, f"{dict(kinds)}: {violations[:5]}; {left}"
    assert left is None, f"{left} {logs}"
    assert len(campaign.injected) >= 100
    died = {each.log.name: each.died for each in campaign.keepers if each.died}
    assert not died, f"workers ended by themselves: {died} {logs}"
