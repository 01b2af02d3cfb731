"""Trainings on their way: the readings that the command line draws, as means over data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.analysis.step_curves import step_curves
from eval.results.schema import Result
from eval.results.store import write_result
from space.figures import plots
from space.pages.analyses import Analyses
from space.source import Source
from space.state import Desk
from space.tables import series
from tests.factories import make_result
from tests.space.figures.checks import check
from tests.space.shelves import LINEAR, part, scored


def reading(name: str, step: int, task: str, right: int, **more: str) -> Result:
    made = make_result(f"local-dir:{name}@{step}", task, correct=np.arange(60) < right,
                       revision=more.pop("revision", f"{name}{step}"), **more)  # fmt: skip
    return part(made, "model", step=step)


RESULTS = [
    *(reading("run", step, task, right) for task, more in (("dtd", 0), ("eurosat", 6))
      for step, right in ((100, 20 + more), (9, 10 + more), (1000, 40 + more))),
    reading("run", 1000, "svhn", 60),  # the other steps lack it
    *(reading("other", step, "dtd", 10 + step) for step in (1, 2)),
    reading("short", 5, "dtd", 20),  # one step is no line
    make_result("zoo:x", "dtd"),
]  # fmt: skip


def test_lines_are_the_means_of_the_readings() -> None:
    found = series.steps(scored(RESULTS), LINEAR)
    assert list(found.groupby("series").groups) == ["local-dir:other", "local-dir:run"]
    run = found[found["series"] == "local-dir:run"]
    assert run["step"].tolist() == [9, 100, 1000]
    assert set(run["tasks"]) == {2}
    curves = {c.task: c for c in step_curves(RESULTS) if c.model == "local-dir:run"}
    for row in run.itertuples():
        values = [r.value for t in ("dtd", "eurosat") for r in curves[t].readings
                  if r.step == row.step]  # fmt: skip
        assert row.value == pytest.approx(np.mean(values), abs=1e-12)
    assert (run["half"] > 0).all()
    assert set(run["kind"]) == {"test"}
    assert series.boards(scored(RESULTS)) == [LINEAR]


def test_a_step_that_was_read_twice_counts_as_it_was_read_last() -> None:
    again = reading("run", 9, "dtd", 55, created="2026-03-01T00:00:00+00:00", revision="again")
    found = series.steps(scored([*RESULTS, again]), LINEAR)
    run = found[found["series"] == "local-dir:run"].set_index("step")
    assert set(run["tasks"]) == {1}  # the second training has no other set at that step
    assert run["value"][9] == pytest.approx(55 / 60)


def test_without_trainings_there_is_nothing() -> None:
    none = scored([make_result("zoo:x", "dtd")])
    assert series.boards(none) == []
    assert len(series.steps(none, LINEAR)) == 0
    assert "step-*" in str(check(plots.steps(series.steps(none, LINEAR))))


def test_the_page_has_lines_where_there_are_trainings_alone(tmp_path: Path) -> None:
    def opened(results: list[Result]) -> list[Any]:
        folder = tmp_path / str(len(results))
        for i, result in enumerate(results):
            write_result(folder / f"{i}.json", result)
        page = Analyses.__new__(Analyses)
        source = Source(str(folder), tmp_path / "cache")
        source.refresh()
        page.desk = Desk(source, tmp_path / "cache")
        return page.trainings("nonsense")

    column, _, plot = opened([make_result("zoo:x", "dtd")])
    assert (column["visible"], plot) == (False, None)
    column, boards, plot = opened(RESULTS)
    assert column["visible"]
    assert boards["choices"] == [("Linear", "linear/top1")]
    assert boards["value"] == "linear/top1"
    assert len(plot.data) == 4  # a line and its band for each of two


def test_the_figure_has_a_line_a_training() -> None:
    found = check(plots.steps(series.steps(scored(RESULTS), LINEAR)))
    lines = [trace for trace in found["data"] if trace.get("name")]
    assert [line["name"] for line in lines] == ["other", "run"]
    assert "95 % over" in found["layout"]["yaxis"]["title"]["text"]
