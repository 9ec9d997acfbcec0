"""The overview: one line for each row, before the rows themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from benchmarks.benchmark import Role
from benchmarks.figures import Ratio, Result
from benchmarks.verdicts import Judged, Verdict, judged

HEAD = ("benchmark", "ours", "of the limit", "of the nearest alternative", "aims")


def lines(results: Iterable[Result]) -> list[tuple[str, ...]]:
    """What each row found, in the order of HEAD."""
    return [_line(each) for each in results]


def count(results: Iterable[Result]) -> str:
    """How many aims were met, and how many rows have nothing to say."""
    found = list(results)
    verdicts = Counter(one.verdict for each in found for one in judged(each))
    told = [f"{verdicts[each]} {each}" for each in Verdict if verdicts[each]]
    failed = sum(bool(each.failed) for each in found)
    return f"{len(found)} rows, {failed} failed; aims: {', '.join(told) or 'none'}"


def amount(value: float, unit: str) -> str:
    """Write a value with three digits and its unit, from nanoseconds or bytes up; shares in %."""
    if unit == "%":
        return f"{100 * value:.3g} %"
    scales = (
        ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
        if unit == "s"
        else ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
    )
    scale, name = next((each for each in scales if value >= each[0]), scales[-1])
    return f"{value / scale:.3g} {name}" if value < 999.5 * scale else f"{value / scale:.0f} {name}"


def said(aim: Judged, unit: str) -> str:
    """An aim and its verdict; what the bound reached too, if that is what it depends on."""
    name = "" if aim.of == "median" else f"{aim.of} "
    text = f"{name}≤ {_value(aim.aim, aim, unit)} {aim.verdict}"
    if aim.verdict is Verdict.MET or aim.bound is None:
        return text
    return f"{text}, the floor: {_value(aim.bound, aim, unit)}"


def _value(value: float, aim: Judged, unit: str) -> str:
    return amount(value, unit) if aim.to is None else f"{value:.3g}"


def _line(result: Result) -> tuple[str, ...]:
    if not result.figures:
        return (result.id, "", "", "", "failed")
    limits = [each for each in result.ratios if each.role is Role.LIMIT]
    others = [each for each in result.ratios if each.role is Role.ALTERNATIVE]
    return (
        result.id,
        amount(result.ours.median, result.unit),
        _nearest(limits),
        _nearest(others),
        _aims(result),
    )


def _nearest(ratios: list[Ratio]) -> str:
    """The one that we come off worst beside."""
    if not ratios:
        return ""
    worst = max(ratios, key=lambda each: each.value)
    return f"{worst.value:.2f} of {worst.to}"


def _aims(result: Result) -> str:
    aims = list(judged(result))
    short = [each for each in aims if each.verdict is not Verdict.MET]
    if not short:
        return str(Verdict.MET) if aims else ""
    return "; ".join(
        said(each, result.unit) + (f" ({each.to})" if each.to else "") for each in short
    )
