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
from campaign.history import judge
from campaign.plan import plan
from campaign.running import Campaign
from servers.stack import NativeStack

FAULTS = int(os.environ.get("TELEGRAM_HYBRID_FAULTS", "110"))
SEED = int(os.environ.get("TELEGRAM_HYBRID_SEED", "5"))

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180 + FAULTS * 5)]


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
