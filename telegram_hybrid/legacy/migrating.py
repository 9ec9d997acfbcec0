"""The migration: check all, bring what is missing batch by batch, verify, report."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from time import monotonic

import attrs

from telegram_hybrid.errors import LegacyRefused
from telegram_hybrid.hybrid import Hybrid
from telegram_hybrid.legacy.batching import batches
from telegram_hybrid.legacy.checking import Plan, Told, check, messages
from telegram_hybrid.legacy.report import ChannelResult, Migrated, OnError
from telegram_hybrid.legacy.source import Source, open_source
from telegram_hybrid.legacy.target import Brought, Target, check_target, retrying
from telegram_hybrid.legacy.verifying import beyond, compare
from telegram_hybrid.model import checks
from telegram_hybrid.schema.postgres.tables import DEFAULT_SCHEMA


def migrate(
    hybrid: Hybrid,
    source: str,
    *,
    schema: str = DEFAULT_SCHEMA,
    channels: Mapping[str, int] | None = None,
    on_error: OnError | str = OnError.RAISE,
    dry_run: bool = False,
    told: Told = lambda *_: None,
) -> Migrated:
    """Bring the messages and channels of the original system into `hybrid`'s store.

    `source` is the URL of its database and `schema` where its tables are; it is read in one
    read-only snapshot. `channels` says which marked id a text means that is none, such as a
    username. First every row is checked: if any cannot be brought, nothing is written and
    `LegacyRefused` has the report; with on_error="skip" the others are brought. A dry run checks
    and ends there.

    Each batch is a transaction with the note of how far it went: after a crash, call it again
    with the same source and it goes on from there. At the end both sides are compared; see
    `Migrated.problems`. `told(stage, done, total)` is called as it goes, with rows or messages.

    No event is written: `outbox replay` announces what consumers should know. What is stored
    already stays as it is; other texts that the original had of it become revisions.

    Raises `InvalidInput` for a source or target that is none, `SchemaMismatch`, and errors of the
    database.
    """
    started = monotonic()
    on_error = checks.member(OnError, "on_error", on_error)
    check_target(hybrid)
    with open_source(source, schema) as opened:
        problems = opened.inspect()
        if problems:
            raise LegacyRefused("source", "; ".join(problems))
        plan = check(opened, channels or {}, told)
        done = Migrated(
            source=opened.name,
            target=hybrid.settings.database_schema,
            dry_run=dry_run,
            found=plan.found,
        )
        if plan.found.refused and on_error is OnError.RAISE:
            raise LegacyRefused("rows", _told_of(done), report=done)
        if not dry_run:
            done = _bring(hybrid, opened, plan, done, told)
    return attrs.evolve(done, seconds=round(monotonic() - started, 3))


def _told_of(done: Migrated) -> str:
    refused = done.found.refused
    reasons = ", ".join(f"{count:,} for {reason}" for reason, count in refused.items())
    return (
        f"{refused.total():,} of {done.found.rows:,} cannot be brought ({reasons}) and nothing was "
        'written; mend them there, name their channels, or leave them out (on_error="skip")'
    )


def _bring(hybrid: Hybrid, source: Source, plan: Plan, done: Migrated, told: Told) -> Migrated:
    target = Target(hybrid, source.name)
    resumed = sum(each.messages for each in target.batches())
    retrying(partial(target.register, plan.registered))
    moved, total = resumed, plan.found.messages
    for channel_id, spellings in plan.channels.items():
        reached = target.reached(channel_id)
        rows = source.rows(spellings, reached)
        for batch in batches(reached, messages(channel_id, rows)):
            moved += retrying(partial(target.write, channel_id, batch)).messages
            told("bring", moved, total)
    results = []
    verified = 0
    for channel_id in plan.channels:
        result = _verify(hybrid, source, plan, channel_id, target.batches(channel_id))
        results.append(result)
        told("verify", verified := verified + result.messages, total)
    return attrs.evolve(done, channels=tuple(results), resumed=resumed)


def _verify(
    hybrid: Hybrid, source: Source, plan: Plan, channel_id: int, brought: list[Brought]
) -> ChannelResult:
    spellings = plan.channels[channel_id]
    verified = changed = 0
    problem: str | None = None
    for batch in brought:
        found = compare(hybrid, source, spellings, batch)
        verified += found.verified
        changed += found.changed
        problem = problem or found.problem
    upto = brought[-1].upto_id if brought else -1
    if missing := beyond(source, spellings, upto, checks.MAX_ID):
        problem = problem or f"{missing:,} messages above id {upto} were not brought"
    messages_here = sum(each.messages for each in brought)
    in_place = sum(each.brought for each in brought)
    return ChannelResult(
        channel_id=channel_id,
        rows=sum(each.rows for each in brought),
        messages=messages_here,
        brought=in_place,
        present=messages_here - in_place,
        revisions=sum(each.revisions for each in brought),
        verified=verified,
        changed=changed,
        problem=problem,
    )
