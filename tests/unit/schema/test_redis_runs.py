"""Runs that are decoded in part: the same as decoded whole, or nothing (promises P6 and P7).

Broken on purpose and seen to fail: messages decoded without a look at their order, their channel or
the bounds of the run; a part of a window that claims all of its coverage; a run that need not end.
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain, combinations, permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telegram_hybrid.model import Entity, Message
from telegram_hybrid.schema.redis import values
from telegram_hybrid.schema.redis.values import PAGE, Run, Undecodable, Window

CHANNEL = -1001649127710
LIFE = values.Life(1793000000.123, 0.002)
SIZE = 4
#: More than there are, to ask for; and every place to ask behind.
LIMITS, PLACES = range(SIZE + 2), range(-1, 8)
#: What a string may hold, and could be taken for the bounds of a line or of a message.
TEXTS = st.text(st.sampled_from('\n\r\\",]}{5')) | st.just('",\n{"channel_id":-1,"message_id":5,')


def message(message_id: int, text: str = "", channel_id: int = CHANNEL) -> Message:
    sent_at = datetime(2026, 11, 1, tzinfo=UTC)
    entities = (Entity(type="bold", offset=0, length=1),) if text else ()
    return Message(
        channel_id=channel_id,
        message_id=message_id,
        sent_at=sent_at,
        text=text,
        entities=entities,
        version=message_id,
    )


def encoded(window: Window) -> bytes:
    data = values.encode_window(window, LIFE)
    assert data is not None
    return data


def lines_of(data: bytes) -> list[bytes]:
    return [line.removesuffix(b",") for line in data.split(b"\n")[1:-1]]


def with_lines(data: bytes, lines: list[bytes]) -> bytes:
    first, *_ = data.split(b"\n")
    return b"%b\n%b\n]}" % (first, b",\n".join(lines))


def windows() -> Iterator[Window]:
    """Every one of up to SIZE messages of few ids, with bounds that are tight or wider."""
    some = chain.from_iterable(combinations(range(6, -1, -1), n) for n in range(SIZE + 1))
    for ids, complete, wider in product(some, (True, False), (0, 1)):
        lo, hi = (ids[-1], ids[0]) if ids else (3, 3)
        messages = tuple(message(each) for each in ids)
        yield Window(messages, complete, 9, max(0, lo - wider), hi + wider)


def said(messages: object) -> list[bytes]:
    """All of them: equal messages may differ in our own record."""
    return [each.to_json() for each in messages]


def test_what_is_decoded_in_part_is_what_is_decoded_whole() -> None:
    for window in windows():
        run = Run(encoded(window), CHANNEL)
        assert (run.lo, run.hi, run.complete, run.version, run.life) == (
            window.lo,
            window.hi,
            window.complete,
            window.version,
            LIFE,
        )
        assert run.newest() == window
        for limit in LIMITS:
            assert said(run.newest(limit).messages) == said(window.messages[:limit])
            for place in PLACES:
                assert said(run.after(place, limit)) == said(window.after(place, limit))


def test_a_part_says_what_it_covers() -> None:
    for window in windows():
        for limit in LIMITS:
            part = Run(encoded(window), CHANNEL).newest(limit)
            if limit >= len(window.messages):
                assert part == window
                continue
            assert not part.complete
            known = [each for each in window.messages if each.message_id >= part.lo]
            assert list(part.messages) == known


@given(
    texts=st.dictionaries(st.integers(0, 300), TEXTS, max_size=12),
    limit=st.integers(0, 14),
    place=st.integers(-1, 301),
)
def test_no_text_is_taken_for_the_bounds_of_a_message(
    texts: dict[int, str], limit: int, place: int
) -> None:
    messages = tuple(message(each, texts[each]) for each in sorted(texts, reverse=True))
    window = Window(messages, True, 9, 0, 300)
    run = Run(encoded(window), CHANNEL)
    assert said(run.newest(limit).messages) == said(window.messages[:limit])
    assert said(run.after(place, limit)) == said(window.after(place, limit))


FULL = encoded(Window.of([message(each, "мяу") for each in (6, 5, 3, 2)], 4, 9))
BAD = {
    "no JSON": lambda _: b"\xff\xfe",
    "empty": lambda _: b"",
    "half": lambda line: line[:60],
    "without its end": lambda line: line[:-1],
    "not UTF-8": lambda line: line.replace("мяу".encode(), b"\xff"),
    "no text of the model": lambda line: line.replace(b'"text":"', b'"text":"\\u0000'),
    "of another channel": lambda line: line.replace(b"1649127710", b"1649127711"),
    "two in one": lambda line: line + b"," + line,
    "another id at its end": lambda line: line.removesuffix(b"}") + b',"message_id":1}',
}


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD)
@pytest.mark.parametrize("at", range(4))
def test_a_line_that_is_wanted_and_cannot_be_vouched_for_is_not_passed_over(
    spoil: Callable[[bytes], bytes], at: int
) -> None:
    good = values.decode_window(FULL, CHANNEL)[0]
    lines = lines_of(FULL)
    lines[at] = spoil(lines[at])
    data = with_lines(FULL, lines)
    assert values.decode_window(data, CHANNEL) is None
    missed = 0
    for limit, place in product(LIMITS, PLACES):
        wanted = good.after(place, limit)
        try:
            found = Run(data, CHANNEL).after(place, limit)
        except Undecodable:
            missed += 1
            continue
        assert said(found) == said(wanted), (limit, place)
        assert good.messages[at] not in wanted
    assert missed
    for limit in LIMITS:
        newest = values.decode_window(data, CHANNEL, limit)
        assert newest is None or limit <= at
        if newest is not None:
            assert said(newest[0].messages) == said(good.messages[:limit])


def test_lines_in_any_order_give_nothing_that_contradicts_itself() -> None:
    lines = lines_of(FULL)
    for count in range(1, 5):
        for order in permutations(range(4), count):
            data = with_lines(FULL, [lines[each] for each in order])
            for limit, place in product(LIMITS, PLACES):
                try:
                    found = [each.message_id for each in Run(data, CHANNEL).after(place, limit)]
                except Undecodable:
                    continue
                assert found == sorted(set(found))
                assert len(found) <= limit
                assert all(each > place for each in found)


def test_ids_of_another_run_are_none_of_this_ones_wherever_it_is_looked_at() -> None:
    page = encoded(Window.page(0, [message(each) for each in range(19, 0, -1)], 9))
    # Those of the lowest three stay in order, and within the page.
    other = page.replace(b'"message_id":', b'"message_id":9')
    with pytest.raises(Undecodable):
        Run(other, CHANNEL)


def test_a_run_that_is_cut_short_is_a_miss_wherever_that_is() -> None:
    for end in range(len(FULL)):
        for limit in (None, 0, 1):
            assert values.decode_window(FULL[:end], CHANNEL, limit) is None


@pytest.mark.parametrize(
    "data",
    [
        FULL.replace(b"\n", b"\r\n"),
        FULL.replace(b"\n", b""),
        FULL + b"\n",
        b"\n" + FULL,
        json.dumps(json.loads(FULL)).encode(),
        json.dumps(json.loads(FULL), indent=1).encode(),
        json.dumps(json.loads(FULL), indent=0, separators=(",", ":")).encode(),
    ],
)
def test_another_layout_is_a_miss(data: bytes) -> None:
    assert json.loads(data) == json.loads(FULL)
    for limit in (None, 0, 1):
        assert values.decode_window(data, CHANNEL, limit) is None


def test_a_page_of_another_size_or_number_is_none() -> None:
    page = Window.page(1, [message(PAGE + 3)], 9)
    assert Run.of_page(encoded(page), CHANNEL, 1).newest() == page
    wider = Window(page.messages, False, 9, page.lo, page.hi + 1)
    for data, number in ((encoded(page), 0), (encoded(wider), 1)):
        with pytest.raises(Undecodable):
            Run.of_page(data, CHANNEL, number)
