"""A run that breaks off keeps what it measured, and goes on from there."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import benchmarks.__main__ as command
import pytest
from benchmarks import keeping, rows
from benchmarks.benchmark import Benchmark, Bound, Contender, Operation, Plan, Role
from benchmarks.figures import Figures, Result
from benchmarks.keeping import Run
from benchmarks.table import markdown

from .conftest import ABOUT

ONCE = Plan(rounds=1, calls=1, warmup=0)


def row(name: str, call: Any = lambda _: None) -> Benchmark:
    ours = Contender("ours", Role.OURS, lambda _: nullcontext(Operation(call=call)))
    return Benchmark(id=name, what="x", contenders=(ours,), plan=ONCE, quick=ONCE)


def found(name: str, **fields: Any) -> Result:
    return Result(id=name, what="x", unit="s", **fields)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    figures = Figures(
        name="ours",
        role=Role.OURS,
        median=1.0,
        p95=2.0,
        p99=3.0,
        spread=0.5,
        cpu=0.1,
        count=9,
        medians=[1.0],
    )
    bound = Bound("limit", "because")
    one = found(
        "get", figures=[figures], bound=bound, began=ABOUT.begun, seconds=1.5, load=0.3, most=2.0
    )
    run = Run(ABOUT, [one, found("save", failed="OSError: no")])

    keeping.write(tmp_path / "run.json", run)

    assert keeping.read(tmp_path / "run.json") == run
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]


def test_a_row_takes_the_place_of_its_earlier_self_in_the_order_of_the_table() -> None:
    # Broken on purpose: without the sorting the row that was measured again came last.
    run = Run(ABOUT, [found("get", failed="no"), found("save")])

    run = run.having(found("seen"), ["get", "seen", "save"])
    run = run.having(found("get"), ["get", "seen", "save"])

    assert [each.id for each in run.results] == ["get", "seen", "save"]
    assert run.results[0].failed is None


def test_what_is_missing_or_failed_is_left_to_do_and_what_is_named_is_done_again() -> None:
    # Broken on purpose: with failed rows counted as done, nobody measured "save" again.
    run = Run(ABOUT, [found("get"), found("save", failed="no")])
    chosen = [row("get"), row("save"), row("seen")]

    assert [each.id for each in keeping.unmeasured(chosen, run, named=False)] == ["save", "seen"]
    assert [each.id for each in keeping.unmeasured(chosen[:1], run, named=True)] == ["get"]


def test_a_run_goes_on_only_on_the_same_machine_with_the_same_versions() -> None:
    later = attrs.evolve(ABOUT, begun=datetime(2026, 11, 2, tzinfo=UTC), load_at_start=3.0, seed=2)

    assert keeping.changed(ABOUT, later) == []
    other = attrs.evolve(later, quick=False, versions=["drivers: redis 9"])
    assert keeping.changed(ABOUT, other) == ["quick", "versions"]


def test_an_interrupted_run_keeps_its_rows_and_goes_on_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Broken on purpose: with the file written at the end alone, the second row found none.
    path, calls = tmp_path / "run.json", []
    stopped = [KeyboardInterrupt()]

    def second(_: object) -> None:
        assert [each.id for each in keeping.read(path).results] == ["first"]
        if stopped:
            raise stopped.pop()

    three = (row("first", calls.append), row("second", second), row("third"))
    monkeypatch.setattr(rows, "ALL", three)
    monkeypatch.setattr(command, "about", lambda **_: ABOUT)

    assert command.main(["--quick", "--json", str(path)]) == 130
    assert "interrupted" in capsys.readouterr().out
    assert command.main(["--quick", "--json", str(path), "--resume"]) == 0

    done = keeping.read(path)
    assert [each.id for each in done.results] == ["first", "second", "third"]
    assert all(each.seconds is not None for each in done.results)
    assert calls == [None]
    page = markdown(done.about, done.results)
    assert all(f"[{each.id}](#{each.id})" in page for each in three)


def test_a_run_of_another_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.json"
    keeping.write(path, Run(attrs.evolve(ABOUT, cpu="another")))
    monkeypatch.setattr(command, "about", lambda **_: ABOUT)

    with pytest.raises(SystemExit):
        command.main(["--quick", "--json", str(path), "--resume"])
    assert "was measured with another cpu" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["--quick", "--resume"])
    assert "--resume needs --json" in capsys.readouterr().err
