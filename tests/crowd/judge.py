"""The judge over what a crowd of writers left behind: a pure function, tested by planted faults."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum

import attrs

from crowd.plan import Fate, Story
from telegram_hybrid.model import EventType, MessageKey, Status

#: Text and caption.
Content = tuple[str, str | None]


class Kind(StrEnum):
    """How a promise can be broken."""

    REFUSED = "a writer got an error"
    MISSING = "saved, not stored"
    TWICE = "stored more than once"
    DISPLACED = "not stored under the time that its key names"
    STALE = "the newest content is not the stored one"
    FORGOTTEN = "an earlier content is no revision"
    INVENTED = "a revision or a message that nobody saved, or the same revision twice"
    UNDONE = "a deletion or a status is not what the writers set"
    SILENT = "the stored version was never announced"
    DISORDERED = "events are not one for each change, in the order of the changes"
    MISCOUNTED = "the writers were told of more or fewer changes than were announced"


@attrs.frozen(slots=True)
class Row:
    """A row of `messages`."""

    key: MessageKey
    sent_at: datetime
    version: int
    content: Content
    status: str


@attrs.frozen(slots=True)
class Kept:
    """A row of `message_revisions`."""

    key: MessageKey
    content: Content
    edited_at: datetime | None


@attrs.frozen(slots=True)
class Announced:
    """A row of `outbox`."""

    key: MessageKey
    type: str
    version: int
    content: Content
    edited_at: datetime | None


@attrs.frozen(slots=True)
class Store:
    """What is in the database; `events` in the order of their ids."""

    keys: Mapping[MessageKey, datetime]
    rows: Sequence[Row]
    revisions: Sequence[Kept]
    events: Sequence[Announced]


@attrs.frozen(slots=True)
class Report:
    """What the library told one writer."""

    inserted: int = 0
    edited: int = 0
    deleted: int = 0
    errors: Sequence[str] = ()


@attrs.frozen(slots=True)
class Violation:
    kind: Kind
    key: MessageKey | None
    detail: str = ""


def judge(told: Sequence[Story], reports: Sequence[Report], store: Store) -> list[Violation]:
    """Everything in which the store differs from what the stories must leave behind."""
    rows, revisions, events = _by_key(store.rows), _by_key(store.revisions), _by_key(store.events)
    found = [Violation(Kind.REFUSED, None, error) for each in reports for error in each.errors]
    found += _miscounted(reports, store.events)
    known = {story.key for story in told}
    for key in (rows.keys() | store.keys.keys() | revisions.keys() | events.keys()) - known:
        found.append(Violation(Kind.INVENTED, key))
    for story in told:
        key = story.key
        found += _row(story, rows[key], store.keys.get(key))
        found += _revisions(story, revisions[key])
        found += _events(story, rows[key], events[key])
    return found


def _by_key(found: Iterable[Row | Kept | Announced]) -> defaultdict[MessageKey, list]:  # type: ignore[type-arg]
    grouped = defaultdict(list)
    for each in found:
        grouped[each.key].append(each)
    return grouped


def _miscounted(reports: Sequence[Report], events: Sequence[Announced]) -> Iterator[Violation]:
    announced = Counter(each.type for each in events)
    for kind, name in (
        (EventType.RECEIVED, "inserted"),
        (EventType.EDITED, "edited"),
        (EventType.DELETED, "deleted"),
    ):
        said = sum(getattr(each, name) for each in reports)
        if said != announced[kind]:
            yield Violation(Kind.MISCOUNTED, None, f"{said} {name}, {announced[kind]} {kind}")


def _row(story: Story, rows: Sequence[Row], sent_at: datetime | None) -> Iterator[Violation]:
    if not rows:
        yield Violation(Kind.MISSING, story.key)
        return
    if len(rows) > 1:
        yield Violation(Kind.TWICE, story.key, f"{len(rows)} times")
    if sent_at not in {row.sent_at for row in rows}:
        yield Violation(Kind.DISPLACED, story.key, f"{rows[0].sent_at}, its key says {sent_at}")
    for row in rows:
        if row.content != _contents(story)[-1]:
            yield Violation(Kind.STALE, story.key, f"{row.content}")
        if row.status != _STATUS[story.fate]:
            yield Violation(Kind.UNDONE, story.key, f"{row.status}, not {_STATUS[story.fate]}")


def _revisions(story: Story, kept: Sequence[Kept]) -> Iterator[Violation]:
    *earlier, newest = _contents(story)
    there = {each.content for each in kept}
    for content in set(earlier) - there - {newest}:
        yield Violation(Kind.FORGOTTEN, story.key, f"{content}")
    for content in there - set(earlier):
        yield Violation(Kind.INVENTED, story.key, f"revision {content}")
    for (content, _), times in Counter((each.content, each.edited_at) for each in kept).items():
        if times > 1:
            yield Violation(Kind.INVENTED, story.key, f"revision {content} {times} times")


def _events(story: Story, rows: Sequence[Row], events: Sequence[Announced]) -> Iterator[Violation]:
    if rows and rows[0].version not in {each.version for each in events}:
        yield Violation(Kind.SILENT, story.key, f"version {rows[0].version}")
    reached = [story.reached(each.content, each.edited_at) for each in events]
    versions = [each.version for each in events]
    kinds = [each.type for each in events]
    edits = [at for at, kind in zip(reached, kinds, strict=True) if kind == EventType.EDITED]
    others = Counter(kind for kind in kinds if kind != EventType.EDITED)
    ordered = (
        kinds[:1] == [EventType.RECEIVED]
        and reached == sorted(reached)
        and len({*reached[:1], *edits}) == 1 + len(edits)
        and versions == sorted(set(versions))
        and others == Counter([EventType.RECEIVED, *_BESIDE[story.fate]])
    )
    if not ordered:
        yield Violation(Kind.DISORDERED, story.key, f"{[*zip(kinds, versions, reached)]}")  # noqa: B905


def _contents(story: Story) -> list[Content]:
    return [(each.text, each.caption) for each in story.contents]


_STATUS = {
    Fate.KEPT: Status.RECEIVED,
    Fate.PUBLISHED: Status.PUBLISHED,
    Fate.DELETED: Status.DELETED,
}
_BESIDE = {
    Fate.KEPT: (),
    Fate.PUBLISHED: (EventType.STATUS_CHANGED,),
    Fate.DELETED: (EventType.DELETED,),
}
