"""Plots: one SVG for each benchmark, medians as bars with their 95th percentiles."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from benchmarks.benchmark import Role
from benchmarks.figures import Result
from benchmarks.overview import amount

mpl.use("svg")

from matplotlib import pyplot

_COLOURS = {
    Role.OURS: "#2a7de1",
    Role.LIMIT: "#3b9c62",
    Role.ALTERNATIVE: "#9aa3ad",
    Role.FLOOR: "#cfd5db",
    Role.TOLD: "#e8dfc8",
}
# Text stays text, and the same figures give the same file.
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.family": "sans-serif"}


def plot(result: Result, path: Path) -> None:
    """Draw one benchmark; nothing if it has no figures."""
    if not result.figures:
        return
    with mpl.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.45 * len(result.figures)))
        for place, each in enumerate(reversed(result.figures)):
            beyond = max(0.0, each.p95 - each.median)
            axes.barh(place, each.median, color=_COLOURS[each.role], height=0.6)
            axes.errorbar(
                each.median, place, xerr=[[0], [beyond]], color="#555", capsize=3, linewidth=1
            )
            axes.annotate(
                amount(each.median, result.unit),
                (each.p95, place),
                xytext=(6, 0),
                textcoords="offset points",
                verticalalignment="center",
            )
        names = [f"{each.name} ({each.role})" for each in reversed(result.figures)]
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(0, 1.2 * max(each.p95 for each in result.figures))
        axes.xaxis.set_major_formatter(
            lambda value, _: amount(value, result.unit) if value else "0"
        )
        axes.set_title(f"{result.id}: median, and 95th percentile", loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        # On white, because the page that shows it may be dark.
        figure.savefig(path, metadata={"Date": None}, bbox_inches="tight", facecolor="white")
        pyplot.close(figure)
